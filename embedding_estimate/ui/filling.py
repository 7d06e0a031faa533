"""From what an image was or would be made with, in an infotext's words, to settings of the form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from embedding_estimate.errors import QUOTED
from embedding_estimate.settings import PARAMETERS
from embedding_estimate.settings.parameters import Parameter, spelled

if TYPE_CHECKING:
    from embedding_estimate.ui.form import Names

WORDS = {  # the infotext's -> a setting
    "Sampler": "sampler",
    "Schedule type": "schedule",
    "Steps": "steps",
    "CFG scale": "guidance_scale",
    "Size-1": "width",
    "Size-2": "height",
    "Seed": "seed",
}
FILLED = ("text", "other_prompt", *WORDS.values())
AUTOMATIC = "Automatic"  # the schedule where the infotext names none
NO_INFOTEXT = (
    "there is no infotext in Text: paste there all that PNG Info shows for an image, "
    "down to the line that begins with Steps:"
)
HEADING = "parameters"  # that PNG Info has above an infotext


def own_prompts(number: int) -> str:
    """What is said where so many contexts were made of the user's own prompts."""
    if not number:
        return "there is no saved style and no last image with a prompt on that side"
    if number == 1:
        return "1 context from the last image and the saved styles"
    return f"{number} contexts from the last image and the saved styles"


def bare(text: str) -> str:
    """An infotext without its heading."""
    first, _, rest = text.strip().partition("\n")
    return rest.strip() if first.strip() == HEADING and rest.strip() else text


def is_infotext(infotext: Mapping[str, Any]) -> bool:
    """Whether it was an infotext, and no mere prompt."""
    return "Steps" in infotext or bool(infotext.get("Negative prompt"))


def read(infotext: Mapping[str, Any], negative: bool, names: Names) -> tuple[dict[str, Any], list[str]]:
    """Settings by name, and a line for each value that the form cannot take.

    `negative` is whether the embedding is for the negative prompt; `names` are the place's samplers and schedules.
    """
    prompt, other = str(infotext.get("Prompt", "")), str(infotext.get("Negative prompt", ""))
    text, beside = (other, prompt) if negative else (prompt, other)
    values: dict[str, Any] = {
        "text": text,
        "other_prompt": " ".join(beside.splitlines()),
    }  # one line, for each line of it would be a prompt
    refused = []
    known = {parameter.name: parameter for parameter in PARAMETERS}
    for word, value in _split(infotext, names).items():
        parameter = known[WORDS[word]]
        taken = _value(parameter, str(value), names(parameter.name))
        if taken is not None:
            values[parameter.name] = taken
        elif word != "Seed":  # it may be random, or larger than ours may be; any other does as well
            refused.append(f"{word} {str(value)[:QUOTED]}: the form cannot take it, {parameter.label} stays as it is")
    return values, refused


def _split(infotext: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """The words that are settings; a sampler of an older WebUI, `DPM++ 2M Karras`, apart from its schedule."""
    written = {word: infotext[word] for word in WORDS if infotext.get(word) not in (None, "")}
    sampler = str(written.get("Sampler"))
    if sampler in names("sampler"):
        return {"Schedule type": AUTOMATIC, **written}
    for schedule in names("schedule"):
        plain = sampler.removesuffix(f" {schedule}")
        if plain in names("sampler"):
            return {**written, "Sampler": plain, "Schedule type": schedule}
    return written


def _value(parameter: Parameter, written: str, names: Sequence[str]) -> Any:
    """As the setting's kind; None where it cannot be one."""
    if parameter.kind is str:
        name = spelled(written, names)
        return name if name in names else None
    try:
        number = parameter.kind(float(written))
    except (ValueError, OverflowError):
        return None
    return None if parameter.problem(number) else number
