"""What an estimate finds out before its work: settings against the model, words, notes, and where it starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from embedding_estimate.checks import advice
from embedding_estimate.checks.model_checks import check_against, check_contexts
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.files import names
from embedding_estimate.model.host import BorrowedModel, Vectors
from embedding_estimate.model.vectors import count
from embedding_estimate.objectives.prompts import check_text
from embedding_estimate.settings import Settings
from embedding_estimate.teaching import words
from embedding_estimate.teaching.recall import Recall
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory
from embedding_estimate.teaching.words import Plan
from embedding_estimate.training.start import exact_note, exact_vectors, number_of_vectors, starting_vectors


@dataclass(frozen=True)
class Opening:
    """All that is known before the U-Net is asked."""

    settings: Settings  # as the model spells them, with the number of vectors
    plans: Sequence[Plan]  # of words that may be typed; none for one word
    teacher: Teacher
    start: Vectors  # (N, width) by encoder
    exact: Vectors | None  # vectors that do exactly what the prompt does, so that there is nothing to train
    notes: Sequence[str]

    @property
    def exact_note(self) -> str:
        """What is said where there is nothing to train."""
        return exact_note(self.settings.tokens, count(self.exact or self.start))


def opening(
    settings: Settings,
    model: BorrowedModel,
    listener: Listener,
    *,
    contexts: Sequence[str] = (),
    beside: Sequence[str] = (),
    recall: Recall | None = None,
) -> Opening:
    """Checks the settings and the prompt against the model; `contexts`, `beside` and `recall` are those of
    `trainer.estimate`.

    The listener gets the names and the notes. Raises `SettingsError` with every problem, and `PromptError` for a prompt
    that does nothing.
    """
    settings = check_against(settings, model)
    check_contexts(contexts, settings.negative, model)
    plans = words.plans(settings, model)
    first_plan = plans[0] if plans else ()
    tokens = sum(word.tokens for word in first_plan) or number_of_vectors(settings, model)
    notes = words.notes(settings, plans)
    settings = replace(settings, tokens=tokens)
    possible = [names.of_words(settings.name, len(plan)) for plan in plans]
    if plans:
        listener.on_names(list(dict.fromkeys(itertools.chain(*possible))))
    teacher = Teacher(model, Task.of(settings, model, first_plan), recall=recall)
    trajectory = Trajectory.of(settings)
    check_text(teacher, trajectory)
    notes += _notes(possible or [[settings.name]], settings, teacher, beside)
    notes += advice.of_contexts(contexts, settings, teacher)
    listener.on_notes(notes)
    start = starting_vectors(settings, model, first_plan)
    exact = exact_vectors(teacher, trajectory, tokens, start if first_plan else None)
    return Opening(settings, plans, teacher, start, exact, notes)


def _notes(possible: Sequence[Sequence[str]], settings: Settings, teacher: Teacher, beside: Sequence[str]) -> list[str]:
    """What the user should know, whatever becomes of the training. `possible` are the names that there may be."""
    model = teacher.model
    others = [*model.embedding_names(), *beside]
    lines = [
        line
        for together in possible
        for name in together
        for line in names.warnings(name, model.token_ids, dict.fromkeys([*others, *together]))
    ]
    lines += advice.of_job(settings, teacher)
    if model.info.clip_skip != 1:
        lines.append(f"made for clip skip {model.info.clip_skip}: use it with the same")
    if model.info.emphasis != "Original":
        lines.append(f"made for the emphasis mode {model.info.emphasis}: use it with the same")
    return lines
