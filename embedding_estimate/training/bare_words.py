"""The prompt's own words, every weight 1: what a result is held against, and what is kept where it is no better."""

from __future__ import annotations

from typing import Any

from embedding_estimate.model.vectors import count, fit
from embedding_estimate.objectives.objective import Objective, in_words
from embedding_estimate.progress import StopReason
from embedding_estimate.settings import ALONE
from embedding_estimate.teaching.teacher import Teacher
from embedding_estimate.teaching.words import Word
from embedding_estimate.training.state import Training


def error(objective: Objective[Any]) -> float:
    """`Objective.held_out` of the bare words, in as many words as they fill chunks."""
    model, text = objective.teacher.model, objective.teacher.task.text
    plain, size = model.token_vectors(text), model.info.chunk_tokens
    places = range(count(plain))
    words = [Word(1.0, tuple(places[first : first + size])) for first in places[::size]]
    return in_words(objective, words).held_out(plain)


def may_be_kept(teacher: Teacher, room: int) -> bool:
    """Whether the prompt's own words can take the place of so many vectors, typed without a weight."""
    plain = teacher.model.token_vectors(teacher.task.text)
    return teacher.task.typed_weight == 1 and not teacher.task.words and 1 <= count(plain) <= room


def keep_where_better(training: Training, objective: Objective[Any]) -> None:
    """Takes the prompt's own words without their weights, where these do better among others and there is room, once
    the training is over.

    They are compared with as many vectors as there are, because held-out rows overrate what other numbers of vectors
    do to the words behind them. They are kept with their own number, which moves nothing.
    """
    if training.stopped not in (StopReason.DONE, StopReason.EARLY):
        return
    teacher, room = objective.teacher, count(training.best)
    if not may_be_kept(teacher, room):
        return
    words = teacher.model.token_vectors(teacher.task.text)
    padded = fit(words, room, teacher.model.padding_vectors())
    ours, theirs = (objective.held_out_among_words(vectors) for vectors in (training.best, padded))
    if ours is None or theirs is None or ours <= theirs:
        return
    training.keep(words, objective.held_out(words))
    training.notes.append(
        "among other words the prompt's words without weights do better than the trained vectors, and were kept, one "
        f"vector for each token: type the prompt itself to have its weights, or choose use={ALONE!r}"
    )
