"""The WebUI's txt2img: its components on the page, and what an image made there is described with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedding_estimate.hosts.webui import comments

ELEMENTS = {  # element id -> the infotext's word for what it holds
    "txt2img_prompt": "Prompt",
    "txt2img_neg_prompt": "Negative prompt",
    "txt2img_styles": "Styles array",
    "txt2img_steps": "Steps",
    "txt2img_sampling": "Sampler",
    "txt2img_scheduler": "Schedule type",  # since 1.9
    "txt2img_cfg_scale": "CFG scale",
    "txt2img_width": "Size-1",
    "txt2img_height": "Size-2",
    "txt2img_seed": "Seed",
}


STYLE_LISTS = tuple(f"{tab}_styles{kind}" for tab in ("txt2img", "img2img") for kind in ("", "_edit_select"))


class Txt2img:
    """`components` are those of the page that was built last, by the infotext's words, and `style_lists` those of
    img2img as well that list the styles."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}
        self.style_lists: dict[str, Any] = {}

    def notice(self, component: Any, **arguments: Any) -> None:
        """For `on_after_component`."""
        element = str(arguments.get("elem_id"))
        if element in ELEMENTS:
            self.components[ELEMENTS[element]] = component
        if element in STYLE_LISTS:
            self.style_lists[element] = component

    def as_infotext(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The components' values as an infotext has them, styles merged into the prompts and comments left out."""
        infotext = dict(values)
        if isinstance(infotext.get("Sampler"), int):  # an early WebUI passes its place in the list
            infotext["Sampler"] = self.components["Sampler"].choices[infotext["Sampler"]]
        return styled(infotext)


def parsed(infotext: str) -> dict[str, Any]:
    """What an infotext says, read by the WebUI itself, styles merged into the prompts likewise."""
    try:
        from modules import infotext_utils
    except ImportError:  # before 1.8
        from modules import generation_parameters_copypaste as infotext_utils
    return styled(infotext_utils.parse_generation_parameters(infotext))


def styled(infotext: Mapping[str, Any]) -> dict[str, Any]:
    """Styles merged into the prompts and then comments left out, as the WebUI does it for an image."""
    from modules import shared

    styles = infotext.get("Styles array") or []
    database = shared.prompt_styles
    prompt = database.apply_styles_to_prompt(infotext.get("Prompt", ""), styles)
    negative = database.apply_negative_styles_to_prompt(infotext.get("Negative prompt", ""), styles)
    return {**infotext, "Prompt": comments.left_out(prompt), "Negative prompt": comments.left_out(negative)}
