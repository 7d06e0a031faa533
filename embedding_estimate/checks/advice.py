"""Notes for the user before the work begins, one plain line each, for every interface.

`of_settings` needs no model. `of_prompts` and `of_training` ask the loaded model. `of_job` gives all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch

from embedding_estimate.checks import embedding_words, foreign_syntax, unused_settings
from embedding_estimate.errors import few, quoted
from embedding_estimate.fidelity.protocol import Fidelity
from embedding_estimate.model.host import MODES, BorrowedModel, Stage
from embedding_estimate.model.vectors import count
from embedding_estimate.objectives import preparation_of
from embedding_estimate.objectives.prompts import SCHEDULED, contexts_of, templates_of
from embedding_estimate.settings import ONE_WORD, Settings
from embedding_estimate.teaching.plan import SKETCH, phases
from embedding_estimate.teaching.teacher import Teacher, Trajectory

MANY = 8  # tokens of the text per vector; with more, most of the effect of its weights is lost
WITHOUT_WEIGHTS = ("sd1", "sd2")  # families whose text encoder ends in a LayerNorm
_AND = re.compile(r"\bAND\b")
_BRACKETS = re.compile(r"(?<!\\)[(\[]")


def of_job(settings: Settings, teacher: Teacher) -> list[str]:
    """All notes on a job, except those on its name."""
    lines = of_settings(settings) + of_prompts(settings, teacher.model) + of_training(settings, teacher)
    return list(dict.fromkeys(lines))


def of_settings(settings: Settings) -> list[str]:
    """Notes that need no model: on syntax of other programs, and on settings that have no effect."""
    lines = []
    for name, prompt in _prompts(settings):
        line_by_line = prompt.splitlines() if name in ("other_prompt", "templates") else [prompt]
        composed = _composed(settings, name)
        notes = [note for line in line_by_line for note in foreign_syntax.notes(line, composed=composed)]
        if name in ("text", "other_prompt") and not composed and _AND.search(prompt):
            notes.append("AND is read as a plain word in a negative prompt; it combines prompts only in a positive one")
        lines += notes if name == "text" else [f"{name}: {note}" for note in notes]
    return list(dict.fromkeys([*lines, *unused_settings.notes(settings)]))


def _prompts(settings: Settings) -> list[tuple[str, str]]:
    """All settings that hold prompts: (name of the setting, text)."""
    return [(name, getattr(settings, name)) for name in ("text", "other_prompt", "initial_prompt", "templates")]


def _composed(settings: Settings, name: str) -> bool:
    """Whether `AND` composes in that prompt."""
    return {"text": not settings.negative, "other_prompt": settings.negative}.get(name, False)


def of_prompts(settings: Settings, model: BorrowedModel) -> list[str]:
    """Notes on what this model and its host make of the prompts."""
    prompts = [prompt for _, prompt in _prompts(settings)]
    notes = model.notes("\n".join(prompts))
    lines = [
        f"{word} looks like the name of an embedding, but no such embedding is loaded: it is read as plain words"
        for word in embedding_words.missing(prompts, model.embedding_names())
    ]
    notes += few(lines, "words look like names of embeddings that are not loaded")
    if model.info.emphasis not in MODES and _BRACKETS.search(settings.text):
        notes.append(
            f"the emphasis mode {model.info.emphasis} applies no weights: the weights in the text have no effect"
        )
    return notes


def of_training(settings: Settings, teacher: Teacher) -> list[str]:
    """Notes on what the training does with these settings, where that may be unexpected."""
    return [line for rule in (_text, _initial_prompt, _stops, _sizes) for line in rule(settings, teacher)]


def of_contexts(contexts: Sequence[str], settings: Settings, teacher: Teacher) -> list[str]:
    """Notes on the user's own contexts that are meant for measuring, but that the training with these settings uses
    too."""
    known: set[str] = set()
    for phase in phases(settings):
        own = contexts_of(phase, teacher)
        known |= {*own.train, *own.select} if phase.part == "Attention" else {*templates_of(phase, teacher)}
    lines = [
        f"context {quoted(context)}: the embedding is trained or selected with it, so its figures there come out too "
        "high"
        for context in contexts
        if context in known
    ]
    return few(lines, "contexts are used in training or selection")


def of_figures(figures: Fidelity) -> list[str]:
    """Notes on what to do if the embedding is worse than the words without weights."""
    if figures.emphasis_in_context is None or figures.emphasis_in_context >= 0:
        return []
    return [
        f"among other words the prompt without weights works better (emphasis in context "
        f"{figures.emphasis_in_context:.2f}, worst in {quoted(figures.worst_context)}): type the prompt itself, make a "
        "word for each weight (words), or train in prompts like yours (use, templates)"
    ]


def _text(settings: Settings, teacher: Teacher) -> Iterator[str]:
    model, text = teacher.model, settings.text
    side = teacher.replaced(text, Trajectory.of(settings))
    if side.scheduled:
        yield SCHEDULED
    if side.composed and "{}" in settings.template_list and unused_settings.changed(settings, ["templates"]):
        yield "templates: a text with AND or a part weight is trained alone, as {}; other templates have no effect"
    tokens = count(model.token_vectors(text))
    if settings.token_source == "Number" and settings.tokens and tokens > MANY * settings.tokens:
        yield (
            f"tokens={settings.tokens}: the text has {tokens} tokens, more than {MANY} for each vector, so most of "
            "the effect of its weights may be lost; use more vectors, or 0 for one per token"
        )
    carries = settings.part != "Transformer" or model.info.family not in WITHOUT_WEIGHTS
    typed = settings.typed_weight != 1 or settings.words != ONE_WORD
    if not carries and not typed and _weighted(text, settings, teacher):
        yield (
            f"part='Transformer' cannot carry the weights of the text in Stable Diffusion {model.info.family[-1]}: "
            "choose Attention, or typed_weight=0"
        )


def _initial_prompt(settings: Settings, teacher: Teacher) -> Iterator[str]:
    prompt = settings.initial_prompt
    if not prompt.strip():
        return
    if _weighted(prompt, settings, teacher):
        yield "initial_prompt: its weights have no effect, because only the vectors of its tokens are used"
    if _AND.search(prompt) or teacher.replaced(prompt, Trajectory.of(settings)).scheduled:
        yield "initial_prompt: AND and schedules are read as plain words here"


def _weighted(prompt: str, settings: Settings, teacher: Teacher) -> bool:
    """Whether the weights of a prompt change its conditioning."""
    trajectory = Trajectory.of(settings)
    with_weights, without = (teacher.replaced(prompt, trajectory, weights=weights).stages for weights in (True, False))
    return any(
        not torch.equal(mine, plain) for mine, plain in zip(_contexts(with_weights), _contexts(without), strict=True)
    )


def _contexts(stages: Sequence[Stage]) -> Iterator[torch.Tensor]:
    """The contexts (1, L, C) of all stages and all parts, one after the other."""
    return (conditioning.context for stage in stages for conditioning, _ in stage.parts)


def _stops(settings: Settings, teacher: Teacher) -> Iterator[str]:
    if not settings.early_stop:
        return
    most = 0  # checks in a part
    for phase in phases(settings):
        if phase.part != SKETCH:
            most = max(most, -(-phase.steps // preparation_of(phase, teacher).check_every))
    if settings.early_stop >= most:
        yield (
            f"early_stop={settings.early_stop}: there are {most} checks in all, so it will not stop early; choose a "
            "smaller number"
        )


def _sizes(settings: Settings, teacher: Teacher) -> Iterator[str]:
    """Notes on sizes that have no effect. They have one on SDXL, whose conditioning contains the size of
    the picture."""
    if settings.part == "Transformer" and teacher.model.info.family != "sdxl" and not settings.preview_every:
        names = unused_settings.changed(settings, ["width", "height"])
        yield from unused_settings.nothing(names, "the Transformer part uses no latents")
