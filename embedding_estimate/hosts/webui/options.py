"""The extension's page in the WebUI's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedding_estimate.settings import PARAMETERS
from embedding_estimate.settings.parameters import Parameter

TITLE = "Embedding Estimate"
ELEMENT = "embedding_estimate"
FOLDER = f"{ELEMENT}_folder"
SUB_FOLDER = "Sub-folder of the embeddings to save in"
DEFAULTS = {  # settings whose default is on the page
    "format": "Default file format",
    "measure": "Measured by default",
    "preview_every": "Default steps between previews; 0: none",
    "attention_memory": "Default memory for what the Attention part keeps, in MB",
    "checkpointing": "Save memory by default (gradient checkpointing)",
}
STARTS = "the tab and the API start from it after Reload UI; ui-config.json and Settings/Defaults leave it alone"


def add() -> None:
    """For `on_ui_settings`."""
    from modules import shared

    page = {FOLDER: shared.OptionInfo("", SUB_FOLDER, section=(ELEMENT, TITLE))}
    for parameter in PARAMETERS:
        if label := DEFAULTS.get(parameter.name):
            option = shared.OptionInfo(parameter.default, label, *_component(parameter), section=(ELEMENT, TITLE))
            if hasattr(option, "info"):  # an early WebUI has no place for a word beside it
                option.info(STARTS)
            page[_key(parameter)] = option
    for key, option in page.items():
        shared.opts.add_option(key, option)


def folder() -> str:
    """The sub-folder to save in; empty for none."""
    from modules import shared

    return str(getattr(shared.opts, FOLDER, ""))


def defaults() -> Mapping[str, Any]:
    """What settings start from, as far as that is on the page."""
    return {parameter.name: _chosen(parameter) for parameter in PARAMETERS if parameter.name in DEFAULTS}


def _chosen(parameter: Parameter) -> Any:
    """The default stands in for what is no value of the setting: a number may be emptied there, or negative."""
    from modules import shared

    value = getattr(shared.opts, _key(parameter), parameter.default)
    return parameter.default if parameter.problem(value) else value


def _key(parameter: Parameter) -> str:
    return f"{ELEMENT}_{parameter.name}"


def _component(parameter: Parameter) -> tuple[Any, Mapping[str, Any]]:
    import gradio as gr

    if parameter.kind is bool:
        return gr.Checkbox, {}
    return (gr.Radio, {"choices": parameter.choices}) if parameter.choices else (gr.Number, {"precision": 0})
