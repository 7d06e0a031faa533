"""Notes on settings that have no effect, or an unexpected one, together with the others. The model is not needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from embedding_estimate.settings import BY_EFFORT, EFFORTS, FEW_WORDS, PARAMETERS, Settings
from embedding_estimate.teaching.plan import SCHEDULE, attention_steps, learning_steps

OF_LATENTS = ("sampler", "schedule", "steps", "guidance_scale", "batch", "checkpointing")
COUNTED_BY_SCHEDULES = ("sampler", "steps")  # `[from:to:when]` goes by their number of evaluations
RATES = {
    "LBFGS": "LBFGS finds the length of each step by a line search; the rate is only its first guess",
    "Prodigy": "Prodigy finds its own rate and multiplies it by this one",
}
DEFAULTS = {parameter.name: parameter.default for parameter in PARAMETERS}


def notes(settings: Settings) -> list[str]:
    """One line for each setting that was changed without effect."""
    return [line for rule in RULES for line in rule(settings)]


def changed(settings: Settings, names: Iterable[str]) -> list[str]:
    """The names among these whose settings are not at their defaults."""
    return [name for name in names if getattr(settings, name) != DEFAULTS[name]]


def nothing(names: Iterable[str], reason: str) -> list[str]:
    """One line that says that these settings have no effect, and why; no line without names."""
    listed = ", ".join(names)
    return [f"{listed}: no effect here, because {reason}"] if listed else []


def _attention(settings: Settings) -> list[str]:
    if settings.part == "Attention":
        lines = nothing(changed(settings, ["sampler"]), "the Attention part always uses Euler")
        if (steps := attention_steps(settings)) < settings.steps and changed(settings, ["steps"]):
            lines.append(f"steps={settings.steps}: the Attention part takes {steps}, and latents between them")
        return lines
    if "Attention" in settings.part:
        return []
    return nothing(changed(settings, ["attention_memory"]), f"the {settings.part} part records no rows of attention")


def _transformer(settings: Settings) -> list[str]:
    if settings.part != "Transformer":
        return []
    names = changed(settings, OF_LATENTS)
    if any(map(SCHEDULE.search, (settings.text, settings.templates))):
        names = [name for name in names if name not in COUNTED_BY_SCHEDULES]
    lines = nothing(names, "the Transformer part uses no latents")
    if settings.learning_steps and settings.measure != BY_EFFORT:
        lines += nothing(changed(settings, ["effort", "seconds"]), "the learning steps and what is measured are set")
    if settings.other_prompt.strip():
        lines.append("other_prompt: the Transformer part ignores it; only the figures use it")
    return lines


def _effort(settings: Settings) -> list[str]:
    return nothing(changed(settings, ["effort"]), "seconds choose it") if settings.seconds else []


def _guidance(settings: Settings) -> list[str]:
    if settings.guidance_scale != 1 or not settings.other_prompt.strip() or settings.part == "Transformer":
        return []
    return ["guidance_scale=1 draws the latents without the negative prompt, so only the figures use other_prompt"]


def _tokens(settings: Settings) -> list[str]:
    if settings.token_source == "Number":
        return []
    return nothing(changed(settings, ["tokens"]), "token_source takes the number of vectors from the initial prompt")


def _words(settings: Settings) -> list[str]:
    if settings.words == FEW_WORDS:
        return []
    return nothing(changed(settings, ["emphasis_goal"]), f"it applies only to words={FEW_WORDS!r}")


def _optimizers(settings: Settings) -> list[str]:
    parts = [dataclasses.replace(settings, part=part) for part in settings.part.split(" + ")]
    used = dict.fromkeys(part.optimizer_used for part in parts)
    return [
        f"rate={settings.rate:g}: {RATES[name]}; 0 chooses a fitting rate"
        for name in used
        if settings.rate and name in RATES
    ]


def _every(settings: Settings) -> list[str]:
    most = dataclasses.replace(settings, effort=[*EFFORTS][-1]) if settings.seconds else settings
    steps = learning_steps(most)
    lines = []
    for name, kept in (("save_every", "snapshots"), ("preview_every", "previews")):
        if (every := getattr(settings, name)) > steps:
            lines.append(f"{name}={every}: there are {steps} learning steps in all, so there will be no {kept}")
        elif every and name == "save_every" and settings.typed_weight == 0:
            lines.append(f"save_every={every}: no snapshots are saved while the best typed weight is searched")
    return lines


def _other_side(settings: Settings) -> list[str]:
    if not settings.negative or settings.other_prompt.strip():
        return []
    return [
        "other_prompt is empty: the negative embedding is trained with an empty positive prompt; give a few of the "
        "positive prompts that you will use it with, one per line"
    ]


RULES: tuple[Callable[[Settings], list[str]], ...] = (
    _attention,
    _transformer,
    _effort,
    _guidance,
    _tokens,
    _words,
    _optimizers,
    _every,
    _other_side,
)
