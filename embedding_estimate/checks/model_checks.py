"""Checks of the settings that need the loaded model; `Settings.check` makes all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from embedding_estimate.errors import SettingsError, nearest, quoted
from embedding_estimate.model.contexts import problems as context_problems
from embedding_estimate.model.host import MODES, BorrowedModel
from embedding_estimate.model.vectors import count
from embedding_estimate.settings import ONE_WORD, Settings
from embedding_estimate.settings.parameters import spelled
from embedding_estimate.teaching.sides import Side

MOST_EVALUATIONS = 150  # so that a schedule in whole steps shows


def check_against(settings: Settings, model: BorrowedModel) -> Settings:
    """The settings, with sampler and schedule spelled as the model spells them.

    Raises `SettingsError` with a line for every setting that the loaded model cannot use.
    """
    settings = replace(
        settings,
        sampler=spelled(settings.sampler, model.samplers),
        schedule=spelled(settings.schedule, model.schedules),
    )
    problems = [line for rule in (_names, _sizes, _tokens, _weights, _files) for line in rule(settings, model)]
    problems += [f"template {line}" for line in _no_contexts(settings.template_list, settings.negative, model)]
    if problems:
        raise SettingsError(problems)
    return settings


def _names(settings: Settings, model: BorrowedModel) -> Iterator[str]:
    for name, value, known in (
        ("sampler", settings.sampler, model.samplers),
        ("schedule", settings.schedule, model.schedules),
    ):
        if value not in known:
            yield f"{name}={quoted(value)} is unknown: {nearest(value, known)}"


def _sizes(settings: Settings, model: BorrowedModel) -> Iterator[str]:
    scale = model.info.latent_scale
    for name, size in (("width", settings.width), ("height", settings.height)):
        if size % scale:
            yield f"{name}={size}: a multiple of {scale} is needed; choose {max(1, round(size / scale)) * scale}"


def _tokens(settings: Settings, model: BorrowedModel) -> Iterator[str]:
    most = model.info.chunk_tokens
    if settings.tokens > most:
        yield f"tokens={settings.tokens}: a prompt chunk of this model holds {most} tokens; choose {most} or fewer"
    if settings.token_source == "Initial prompt":
        tokens = count(model.token_vectors(settings.initial_prompt))
        if not 1 <= tokens <= most:
            yield (
                f"initial_prompt has {tokens} tokens: an embedding has 1 to {most}; change it, or choose "
                "token_source='Number'"
            )


def _weights(settings: Settings, model: BorrowedModel) -> Iterator[str]:
    emphasis = model.info.emphasis
    if settings.typed_weight != 1 and emphasis not in MODES:
        yield f"typed_weight={settings.typed_weight:g}: the emphasis mode {emphasis} reads no weights; choose 1"
    if settings.words != ONE_WORD:
        yield from _no_words(settings, model)


def _files(settings: Settings, model: BorrowedModel) -> Iterator[str]:
    if settings.format == "pt" and len(model.info.widths) > 1:
        yield "format='pt' holds the vectors of one encoder, and this model has two: choose 'safetensors'"


def check_contexts(contexts: Sequence[str], negative: bool, model: BorrowedModel) -> None:
    """Raises `SettingsError` with a line for each of the user's contexts in which an embedding cannot be measured."""
    if problems := context_problems(contexts) or _no_contexts(contexts, negative, model):
        raise SettingsError([f"context {line}" for line in problems])


def _no_contexts(prompts: Sequence[str], negative: bool, model: BorrowedModel) -> list[str]:
    return [
        f"{quoted(prompt)} has a schedule, AND or a part weight (text :1.2): a context is a plain prompt; remove it"
        for prompt in prompts
        if _changes(prompt.replace("{}", "x"), negative, model)
    ]


def _no_words(settings: Settings, model: BorrowedModel) -> list[str]:
    """Why the text cannot be divided into words with weights of their own; empty if it can."""
    if (emphasis := model.info.emphasis) not in MODES:
        return [f"words={settings.words!r}: the emphasis mode {emphasis} reads no weights; choose 'One'"]
    if _changes(settings.text, settings.negative, model):
        return [
            f"words={settings.words!r}: the text has a schedule, AND or a part weight (text :1.2), which words cannot "
            "have; choose 'One', or remove it"
        ]
    return []


def _changes(text: str, negative: bool, model: BorrowedModel) -> bool:
    """Whether a prompt changes during sampling, is composed by `AND`, or has a part weight."""
    size = model.info.default_size
    stages = model.encode(text, evaluations=MOST_EVALUATIONS, width=size, height=size, negative=negative)
    side = Side(model, stages)
    return side.scheduled or side.composed
