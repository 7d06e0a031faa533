"""The state from which an estimate can go on, and going on from it.

A state holds what has been reached and where the optimizer is. What the teacher records is left out: the same settings
and seed record it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from embedding_estimate import __version__
from embedding_estimate.errors import EstimateError, quoted
from embedding_estimate.estimation.opening import Opening
from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.model.host import BorrowedModel, ModelInfo
from embedding_estimate.teaching.plan import learning_steps
from embedding_estimate.teaching.teacher import Teacher
from embedding_estimate.training.state import Training

WORDS = {
    "version": "the version of this program",
    "torch": "the version of torch",
    "model": "the model",
    "kind": "the kind of model",
    "clip_skip": "the clip skip",
    "emphasis": "the emphasis mode",
    "networks": "the extra networks",
}
"""For each key of "made_with" in a state."""


@dataclass(frozen=True)
class Position:
    """Where an estimate goes on."""

    training: Training
    teacher: Teacher
    phase: int = 0
    run: Tree | None = None  # of an optimizer in that phase; None at its start
    seconds: float = 0.0  # that it took to get there


def position(begun: Opening, model: BorrowedModel, state: Tree | None) -> Position:
    """Where a state is or, without one, the beginning.

    Raises `EstimateError`, in one line, for a state that another model, version or prompt has left.
    """
    if state is None:
        return Position(Training(dict(begun.start)), begun.teacher)
    _check(begun, model, state)
    teacher = begun.teacher
    if len(teacher.task.words) != state["words"]:
        teacher = teacher.in_words(next(plan for plan in begun.plans if len(plan) == state["words"]))
    elif not teacher.task.words:
        teacher = teacher.typed(state["typed_weight"])
    training = Training.restored(state["training"], model.device)
    return Position(training, teacher, state["phase"], state["run"], state["seconds"])


def state_of(begun: Opening, teacher: Teacher, phase: int, trained: Tree) -> dict[str, Any]:
    """The state in that phase; `trained` has the keys "training" and "run"."""
    return {
        "step": trained["training"]["step"],
        "steps": learning_steps(begun.settings),
        "made_with": _made_with(teacher.model.info),
        "start": begun.start,
        "phase": phase,
        "typed_weight": teacher.task.typed_weight,
        "words": len(teacher.task.words),
        **trained,
    }


def _made_with(info: ModelInfo) -> dict[str, Any]:
    """What has to be the same when it goes on."""
    return {
        "version": __version__,
        "torch": str(torch.__version__),
        "model": f"{info.name} {info.hash}".rstrip(),
        "kind": f"{info.family} {info.prediction}",
        "clip_skip": info.clip_skip,
        "emphasis": info.emphasis,
        "networks": ", ".join(info.networks),
    }


def _check(begun: Opening, model: BorrowedModel, state: Tree) -> None:
    name, then = begun.settings.name, state["made_with"]
    for what, now in _made_with(model.info).items():
        if then.get(what) != now:
            raise EstimateError(
                f"{name} cannot be resumed: {WORDS[what]} was {quoted(then.get(what))} when it began, and is "
                f"{quoted(now)} now; go back to that, or discard it and estimate again"
            )
    if not _same(state["start"], begun.start):
        raise EstimateError(
            f"{name} cannot be resumed: the prompt's tokens have other vectors than then, so an embedding in it has "
            "changed; put it back, or discard it and estimate again"
        )


def _same(one: Tree, other: Tree) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key].cpu()) for key in one)
