"""A training: runs of optimizers over an objective, and what is tried where one fails."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from embedding_estimate.errors import failures
from embedding_estimate.errors.out_of_memory import first_that_fits
from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.objectives.objective import Objective
from embedding_estimate.optimizers import automatic_rate
from embedding_estimate.progress import Stopped, StopReason
from embedding_estimate.training.descent import descend
from embedding_estimate.training.handlers import Watch
from embedding_estimate.training.state import Training

logger = logging.getLogger(__name__)

FALLBACK = "Adam"
GO_ON = (StopReason.DONE, StopReason.EARLY)  # of a stage, behind which the next one follows


def train(
    training: Training, objective: Objective[Any], space: VectorSpace, watch: Watch, resumed: Tree | None = None
) -> None:
    """Optimises the vectors from the best so far and keeps the best by their error on the select set, not the last.

    Where the loss leaves the finite numbers it is tried once more at half the rate, from the best so far; where a
    line search finds no lower point, `FALLBACK` goes on.

    `resumed` is the "run" of a state that `watch.on_state` got, and the training that of the same state.
    """
    started = time.perf_counter()
    phase = objective.phase
    first_step = resumed["first_step"] if resumed else training.step
    if not resumed:
        training.best_error = objective.held_out_start
    training.begin(phase.part)
    training.notes += [note for note in objective.notes if note not in training.notes]
    last_step = first_step
    for stage, steps in objective.stages():
        last_step += steps
        if resumed and last_step < resumed["last_step"]:
            continue  # it has been taken already
        _Runs(training, stage, space, watch, first_step, last_step, started, resumed).to_the_end()
        resumed = None
        if training.stopped not in GO_ON:
            break
    training.seconds += time.perf_counter() - started


def _attempts(rate: float) -> list[float]:
    return [rate, rate / 2]


@dataclass
class _Runs:
    """Runs of optimizers over one stage, one after the other, up to a step."""

    training: Training
    objective: Objective[Any]
    space: VectorSpace
    watch: Watch
    first_step: int  # of the first stage
    last_step: int  # of this one
    started: float  # seconds of `time.perf_counter`
    resumed: Tree | None  # what the first run goes on from

    def to_the_end(self) -> None:
        """The phase's optimizer, and what goes on where it finds no lower point."""
        phase, training = self.objective.phase, self.training
        if self.resumed:
            self.finite(self.resumed["optimizer"], self.resumed["rates"])
        else:
            self.finite(phase.optimizer, _attempts(phase.rate or self._rate_of(phase.optimizer)))
        if training.stopped == StopReason.STUCK and training.step == self.last_step:
            training.stopped = StopReason.DONE
        elif training.stopped == StopReason.STUCK:
            training.notes.append(f"{phase.optimizer} found no lower point at step {training.step}: {FALLBACK} went on")
            self.finite(FALLBACK, _attempts(self._rate_of(FALLBACK)))

    def _rate_of(self, optimizer: str) -> float:
        return automatic_rate(optimizer, math.sqrt(self.training.best_error / self.objective.held_out_empty))

    def finite(self, optimizer: str, rates: Sequence[float]) -> None:
        """`within_memory` at the first of the rates; at the next one where the loss leaves the finite numbers."""
        training = self.training
        for place, attempt in enumerate(rates):
            training.stopped = self.within_memory(optimizer, rates[place:])
            if training.stopped != StopReason.DIVERGED:
                break
            training.notes.append(
                f"rate={attempt:g}: the loss was not finite at step {training.step}; the best vectors before were kept"
            )
            if training.step == self.last_step:
                break

    def within_memory(self, optimizer: str, rates: Sequence[float]) -> StopReason:
        """`descend` at the first of the rates; where memory runs out with less of it, from the best so far and the step
        of the last check.

        The best is kept where it runs out all the same, and after any other error. Raises what the model raised where
        there is nothing to keep.
        """
        try:
            return first_that_fits(self._ways(optimizer, rates))
        except Stopped:
            raise
        except Exception as error:
            return self._ended_by(error)

    def _ways(self, optimizer: str, rates: Sequence[float]) -> Iterator[Callable[[], StopReason]]:
        """To run the optimizer. To ask for the next is to say that memory ran out in the last."""
        if not self.objective.phase.checkpointing and not (self.resumed and self.resumed["sparing"]):
            yield partial(self._descend, optimizer, rates, sparing=False)
            self._go_on("continued with less memory, as with Save memory")
        while True:
            yield partial(self._descend, optimizer, rates, sparing=True)
            if not self.objective.teacher.model.release(for_good=True):
                return
            self._go_on("continued without what the host had kept for speed or precision")

    def _go_on(self, how: str) -> None:
        self.training.notes.append(f"out of memory at step {self.training.go_back(self.last_step)}: {how}")

    def _descend(self, optimizer: str, rates: Sequence[float], *, sparing: bool) -> StopReason:
        resumed, self.resumed = self.resumed, None

        def on_state(collect: Callable[[], Tree]) -> None:
            run = {"optimizer": optimizer, "rates": rates, "sparing": sparing}
            steps = {"first_step": self.first_step, "last_step": self.last_step}
            self.watch.on_state(lambda: self._state({**run, **steps, "descent": collect()}))

        with self.objective.teacher.model.checkpointed() if sparing else nullcontext():
            return descend(
                self.training,
                self.objective,
                self.space,
                replace(self.watch, on_state=on_state),
                self.last_step,
                optimizer=optimizer,
                rate=rates[0],
                sparing=sparing,
                resumed=resumed["descent"] if resumed else None,
            )

    def _state(self, run: Tree) -> Tree:
        return {"training": self.training.state(time.perf_counter() - self.started), "run": run}

    def _ended_by(self, error: Exception) -> StopReason:
        """Keeps the best vectors after an error. Raises it where there are none yet."""
        training, reason = self.training, StopReason.of(error)
        if not training.something_to_keep:
            raise error
        step = training.go_back(self.last_step)
        if reason == StopReason.NO_MEMORY:
            training.notes.append(f"out of memory at step {step}: {training.keep_what_is_known()}")
        else:
            line = failures.logged(error, logger, f"step {step} of the training")
            training.notes.append(f"the model failed at step {step}: {line}; {training.keep_what_is_known()}")
        return reason
