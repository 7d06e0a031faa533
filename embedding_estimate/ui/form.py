"""The settings as a form: one component for each parameter, and from their values to settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import gradio as gr

from embedding_estimate.settings import PARAMETERS, Settings
from embedding_estimate.settings.parameters import Parameter
from embedding_estimate.ui import PREFIX

Rows = tuple[tuple[str, ...], ...]  # of settings by name, side by side

FIRST: Rows = (("text",), ("prompt_type",), ("name", "overwrite"), ("tokens",))
TRAINING: Rows = (
    ("effort", "seconds"),
    ("part",),
    ("use",),
    ("steps", "learning_steps"),
    ("rate", "optimizer"),
    ("loss", "token_source"),
    ("initial_prompt",),
)
MORE: Rows = (  # and behind these all that are named nowhere here
    ("other_prompt", "templates"),
    ("words", "emphasis_goal"),
    ("typed_weight", "scheduler"),
    ("batch", "early_stop"),
    ("sampler", "schedule"),
    ("guidance_scale", "seed"),
    ("width", "height"),
    ("attention_memory", "checkpointing"),
    ("measure", "format"),
    ("save_every", "preview_every"),
)
COUNTED = ("text", "initial_prompt")  # prompts with a token count beside them
STOPS = 300  # that can still be hit on a slider
FEW = 4  # choices that are shown all at once

Names = Callable[[str], Sequence[str]]  # what a setting without choices of its own takes in this place; none: any text


class Form:
    """The components of all settings. `first` and then `folds` build them, each within gradio's blocks."""

    def __init__(self, names: Names, defaults: Mapping[str, Any], *, keeps_prompts: bool = False):
        """`defaults` are what settings start from by the place's own settings, the rest start from their own.
        `keeps_prompts` is whether the place has prompts of the user's to make contexts of."""
        self._names = names
        self._keeps_prompts = keeps_prompts
        self._defaults = defaults
        self._left = {parameter.name: parameter for parameter in PARAMETERS}
        for name, value in defaults.items():
            self._left[name] = replace(self._left[name], default=value)
        self.components: dict[str, Any] = {}
        self.counts: dict[str, Any] = {}  # the token counts

    def first(self) -> None:
        """What every estimate needs."""
        self._rows(FIRST)

    def folds(self) -> None:
        """Everything else."""
        with gr.Accordion("Training", open=True, elem_id=f"{PREFIX}training"):
            self._rows(TRAINING)
        with gr.Accordion("More settings", open=False, elem_id=f"{PREFIX}more") as self.more:
            self._rows(MORE)
            self._rows(_pairs(list(self._left)))
        for name in self._defaults:
            self.components[name].do_not_save_to_config = True  # else the WebUI would put back its first value for ever

    def settings(self, values: Sequence[Any]) -> Settings:
        """What the components' values say, unchecked."""
        return Settings.from_mapping({name: _plain(value) for name, value in zip(self.components, values, strict=True)})

    def _rows(self, rows: Iterable[Sequence[str]]) -> None:
        for names in rows:
            self._row(names)

    def _row(self, names: Sequence[str]) -> None:
        with gr.Row(elem_id=f"{PREFIX}{names[0]}_row") if len(names) > 1 else nullcontext():
            for name in names:
                parameter = self._left.pop(name)
                if name in COUNTED:
                    with gr.Column(elem_classes=[f"{PREFIX}counted"]):
                        self.components[name] = component(parameter)
                        self.counts[name] = gr.HTML(elem_id=f"{PREFIX}{name}_count")
                elif name == "templates":
                    with gr.Column(min_width=160, elem_id=f"{PREFIX}contexts"):
                        self.components[name] = component(parameter)
                        self._own_prompts()
                else:
                    self.components[name] = component(parameter, self._names(name))
        if "name" in names:
            self.name_remarks = gr.HTML(elem_id=f"{PREFIX}name_remarks")

    def _own_prompts(self) -> None:
        """A button that fills in contexts, and what is said of that."""
        self.own_prompts = gr.Button(
            "From my prompts", size="sm", visible=self._keeps_prompts, elem_id=f"{PREFIX}own_prompts"
        )
        self.own_prompts_taken = gr.HTML(elem_id=f"{PREFIX}own_prompts_taken")


def component(parameter: Parameter, names: Sequence[str] = ()) -> Any:
    """What a parameter is typed or chosen with."""
    shared = {
        "label": parameter.label,
        "info": info(parameter),
        "value": parameter.default,
        "elem_id": f"{PREFIX}{parameter.name}",
    }
    choices = list(parameter.choices or names)
    if parameter.kind is bool:
        return gr.Checkbox(**shared)
    if choices:
        shared["value"] = parameter.default if parameter.default in choices else choices[0]
        return gr.Radio(choices, **shared) if len(choices) <= FEW else gr.Dropdown(choices, **shared)
    if parameter.kind is str:
        lines = 3 if parameter.lines or parameter.name in COUNTED else 1
        return gr.Textbox(lines=lines, max_lines=1 if lines == 1 else 20, **shared)
    if _slides(parameter):
        return gr.Slider(parameter.minimum, parameter.maximum, step=_step(parameter), **shared)
    return gr.Number(**shared)


def _step(parameter: Parameter) -> float:
    if parameter.kind is float:
        return 0.5 if parameter.maximum is None or parameter.maximum > 10 else 0.05
    return 8 if parameter.unit == "pixels" else 1


def _slides(parameter: Parameter) -> bool:
    if parameter.minimum is None or parameter.maximum is None:
        return False
    return parameter.maximum - parameter.minimum <= STOPS * _step(parameter)


def info(parameter: Parameter) -> str:
    """The help, with unit and bounds where they do not show otherwise."""
    facts = parameter.unit
    if parameter.minimum is not None and not _slides(parameter):
        facts = f"{parameter.minimum:g} to {parameter.maximum:,.15g} {parameter.unit}".rstrip()
    return f"{parameter.help} [{facts}]" if facts else parameter.help


def _plain(value: Any) -> Any:
    """Browsers know one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _pairs(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + 2] for start in range(0, len(names), 2))
