"""What happens beside the learning steps. The loop calls each of these after every step, in the order of `handlers`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.model.host import Vectors
from embedding_estimate.objectives.objective import Objective
from embedding_estimate.progress import OnProgress, Progress, StopReason, StopToken
from embedding_estimate.teaching.teacher import Teacher
from embedding_estimate.training.state import Training, on_cpu

logger = logging.getLogger(__name__)

READ_EVERY = 0.25  # seconds between two looks at the loss, each of which makes the device wait
GAIN = 1e-3  # relative fall of the held-out error that counts as progress for the early stop

OnPreview = Callable[[Teacher, Vectors, int], None]  # whose vectors they are, the vectors, the step
OnSnapshot = Callable[[Training, Teacher, int], None]  # the training so far, whose vectors it trains, the step
OnState = Callable[[Callable[[], Tree]], None]  # what collects the state to resume from, where it is time for one


def no_state(collect: Callable[[], Tree]) -> None:
    """For trainings that nothing goes on from."""


@dataclass(frozen=True)
class Watch:
    """Who is told of a training, and who may stop it."""

    on_progress: OnProgress
    on_snapshot: OnSnapshot
    stop: StopToken
    on_preview: OnPreview = lambda teacher, vectors, step: None
    on_state: OnState = no_state
    save_every: int = 0  # steps between two snapshots; 0: none
    preview_every: int = 0  # likewise
    total_steps: int = 0  # of all phases; 0: of this one


class NotFinite(Exception):
    """The optimizer has left the finite numbers."""


@dataclass
class Step:
    """One learning step, as handlers see it."""

    number: int
    loss: Tensor
    stopped: bool  # by the user
    stuck: bool  # the optimizer moved nothing
    last: bool  # none follows it in this run
    read: Callable[[], dict[str, Tensor]]  # the vectors (N, width) by encoder, as they are

    @cached_property
    def vectors(self) -> dict[str, Tensor]:
        """(N, width) by encoder. Raises `NotFinite`."""
        vectors = {key: value.detach().clone() for key, value in self.read().items()}
        if not all(bool(value.isfinite().all()) for value in vectors.values()):
            raise NotFinite
        return vectors


Handler = Callable[[Step], StopReason | None]


def handlers(
    training: Training,
    objective: Objective[Any],
    watch: Watch,
    last_step: int,
    state: Callable[[], Tree],
    without_progress: int = 0,
) -> Sequence[Handler]:
    """All of them, for one run of an optimizer up to `last_step`, whose own part of the state `state` returns.

    `without_progress` are regular checks in a row, of a run that goes on.
    """
    check = Check(training, objective, watch.save_every, without_progress)
    return (
        check,
        Snapshot(training, objective.teacher, watch),
        Preview(objective.teacher, watch),
        Report(training, objective, watch, last_step),
        State(watch.on_state, lambda: {**state(), "without_progress": check.without_progress}),
        End(),
    )


@dataclass
class Check:
    """Judges the vectors on the select set and keeps the best; the early stop."""

    training: Training
    objective: Objective[Any]
    save_every: int  # a snapshot has the best of its own step too
    without_progress: int = 0  # regular checks in a row

    def __call__(self, step: Step) -> StopReason | None:
        regular = step.last or step.number % self.objective.check_every == 0
        if not regular and not due(step.number, self.save_every):
            return None
        error, best = self.objective.held_out(step.vectors), self.training.best_error
        if not math.isfinite(error):
            raise NotFinite
        if regular:
            self.without_progress = 0 if error < (1 - GAIN) * best else self.without_progress + 1
        self.training.judge(step.vectors, error, 1 - error / self.objective.held_out_empty)
        logger.debug("step %d: held-out error %.4g, the best %.4g", step.number, error, self.training.best_error)
        patience = self.objective.phase.early_stop
        return StopReason.EARLY if patience and self.without_progress >= patience else None


@dataclass
class Snapshot:
    """Shows the training as it is at every n-th step."""

    training: Training
    teacher: Teacher
    watch: Watch

    def __call__(self, step: Step) -> None:
        if due(step.number, self.watch.save_every):
            self.watch.on_snapshot(self.training, self.teacher, step.number)


@dataclass
class Preview:
    """Shows the vectors of every n-th step."""

    teacher: Teacher
    watch: Watch

    def __call__(self, step: Step) -> None:
        if due(step.number, self.watch.preview_every) and not step.stopped:
            self.watch.on_preview(self.teacher, step.vectors, step.number)


@dataclass
class Report:
    """Looks at the loss now and then, and tells where the training is."""

    training: Training
    objective: Objective[Any]
    watch: Watch
    last_step: int
    read_at: float = field(default=-math.inf)  # seconds of `time.monotonic`

    def __call__(self, step: Step) -> None:
        if not step.last and time.monotonic() - self.read_at <= READ_EVERY:
            return
        self.read_at, loss = time.monotonic(), float(step.loss)
        if not math.isfinite(loss):
            raise NotFinite
        training = self.training
        if not training.checks:
            training.unjudged = step.number, on_cpu(step.read())
        explained = 1 - training.best_error / self.objective.held_out_empty
        total = max(self.watch.total_steps, self.last_step)
        _, stretch = training.stretches[-1]
        self.watch.on_progress(Progress("train", step.number, total, loss, explained, stretch))


@dataclass
class State:
    """Offers the state behind each step that another follows, or could follow."""

    on_state: OnState
    collect: Callable[[], Tree]

    def __call__(self, step: Step) -> None:
        if not (step.stopped or step.stuck):
            self.on_state(self.collect)


class End:
    """Ends the run where the user stopped it or the optimizer cannot go on."""

    def __call__(self, step: Step) -> StopReason | None:
        if step.stopped:
            return StopReason.INTERRUPTED
        return StopReason.STUCK if step.stuck else None


def due(step: int, every: int) -> bool:
    """Whether a step is one of every n-th; 0 for none."""
    return every > 0 and step % every == 0
