"""Settings that are valid one by one but contradict each other. The model is not needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from embedding_estimate import optimizers
from embedding_estimate.model import contexts
from embedding_estimate.settings.choices import ALONE, AMONG_WORDS, ONE_WORD

if TYPE_CHECKING:
    from embedding_estimate.settings.settings import Settings

Sound = Callable[..., bool]
"""Whether the settings of these names have values that make sense by themselves: others contradict nothing."""


def contradictions(settings: Settings, sound: Sound) -> list[str]:
    """One line for each contradiction."""
    return [line for rule in RULES for line in rule(settings, sound)]


def _prompts(settings: Settings, sound: Sound) -> list[str]:
    problems = []
    if sound("text") and not settings.text.strip():
        problems.append("text is empty: give a prompt")
    if sound("templates"):
        problems += [f"template {line}" for line in contexts.problems(settings.template_list)]
    if sound("use", "templates") and settings.use == ALONE and set(settings.template_list) != {"{}"}:
        problems.append(
            f"templates: use={ALONE!r} trains without other words; leave templates out, or choose {AMONG_WORDS!r}"
        )
    return problems


def _other_side(settings: Settings, sound: Sound) -> list[str]:
    problems = []
    if sound("prompt_type", "guidance_scale") and settings.negative and settings.guidance_scale == 1:
        problems.append("guidance_scale=1 ignores the negative prompt: choose more than 1")
    if sound("prompt_type", "other_prompt") and not settings.negative and len(settings.other_prompts) > 1:
        problems.append(
            f"other_prompt has {len(settings.other_prompts)} lines: the negative prompt is one line; give one, or "
            "choose prompt_type='Negative Prompt'"
        )
    return problems


def _start(settings: Settings, sound: Sound) -> list[str]:
    if sound("initial_prompt") and settings.token_source == "Initial prompt" and not settings.initial_prompt.strip():
        return ["token_source='Initial prompt' needs an initial_prompt: give one, or choose 'Number'"]
    return []


def _words(settings: Settings, sound: Sound) -> list[str]:
    if not sound("words", "typed_weight", "initial_prompt") or settings.words == ONE_WORD:
        return []
    problems = []
    if settings.typed_weight != 1:
        problems.append(
            f"typed_weight={settings.typed_weight:g}: words={settings.words!r} sets the weights by itself; choose 1"
        )
    if settings.initial_prompt.strip():
        problems.append(f"initial_prompt: words={settings.words!r} starts from the text's own tokens; leave it empty")
    return problems


def _optimizers(settings: Settings, sound: Sound) -> list[str]:
    if not sound("part", "optimizer"):
        return []
    used = [dataclasses.replace(settings, part=part).optimizer_used for part in settings.part.split(" + ")]
    problems = [line for name in dict.fromkeys(used) for line in optimizers.lacking(name)]
    full = [name for name in used if name in optimizers.FULL]
    if full and sound("scheduler") and settings.scheduler != "constant":
        problems.append(
            f"scheduler={settings.scheduler!r}: {full[0]} finds its own step length; "
            "choose 'constant', or another optimizer"
        )
    return problems


RULES: tuple[Callable[[Settings, Sound], list[str]], ...] = (_prompts, _other_side, _start, _words, _optimizers)
