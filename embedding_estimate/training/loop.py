"""A training: runs of optimizers over an objective, and what is tried where one fails."""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from embedding_estimate.errors import failures
from embedding_estimate.errors.out_of_memory import ran_out
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.objectives.objective import Objective
from embedding_estimate.optimizers import automatic_rate
from embedding_estimate.progress import Stopped, StopReason
from embedding_estimate.training.descent import descend
from embedding_estimate.training.handlers import Watch
from embedding_estimate.training.state import Training

logger = logging.getLogger(__name__)

FALLBACK = "Adam"


def train(training: Training, objective: Objective[Any], space: VectorSpace, watch: Watch) -> None:
    """Optimises the vectors from the best so far and keeps the best by their error on the select set, not the last.

    Where the loss leaves the finite numbers it is tried once more at half the rate, from the best so far; where a
    line search finds no lower point, `FALLBACK` goes on.
    """
    started = time.perf_counter()
    phase = objective.phase
    training.best_error = objective.held_out_start
    training.begin(phase.part)
    training.notes += [note for note in objective.notes if note not in training.notes]
    run = _Runs(training, objective, space, watch, training.step + phase.steps)

    def rate_of(optimizer: str) -> float:
        return automatic_rate(optimizer, math.sqrt(training.best_error / objective.held_out_empty))

    run.finite(phase.optimizer, phase.rate or rate_of(phase.optimizer))
    if training.stopped == StopReason.STUCK and training.step == run.last_step:
        training.stopped = StopReason.DONE
    elif training.stopped == StopReason.STUCK:
        training.notes.append(f"{phase.optimizer} found no lower point at step {training.step}: {FALLBACK} went on")
        run.finite(FALLBACK, rate_of(FALLBACK))
    training.seconds += time.perf_counter() - started


@dataclass
class _Runs:
    """Runs of optimizers, one after the other, up to a step."""

    training: Training
    objective: Objective[Any]
    space: VectorSpace
    watch: Watch
    last_step: int

    def finite(self, optimizer: str, rate: float) -> None:
        """`within_memory`; once more with half the rate where the loss leaves the finite numbers."""
        training = self.training
        for attempt in (rate, rate / 2):
            training.stopped = self.within_memory(optimizer, attempt)
            if training.stopped != StopReason.DIVERGED:
                break
            training.notes.append(
                f"rate={attempt:g}: the loss was not finite at step {training.step}; the best vectors before were kept"
            )
            if training.step == self.last_step:
                break

    def within_memory(self, optimizer: str, rate: float) -> StopReason:
        """`descend`; once memory runs out with less of it, from the best so far and the step of the last check; the
        best is kept where it runs out again, and after any other error.

        Raises what the model raised where there is nothing to keep.
        """
        training, model, sparing = self.training, self.objective.teacher.model, self.objective.phase.checkpointing
        while True:
            try:
                with model.checkpointed() if sparing else nullcontext():
                    return self._descend(optimizer, rate, sparing)
            except Stopped:
                raise
            except Exception as error:
                if not ran_out(error):
                    return self._failed(error)
                released = sparing and model.release(for_good=True)
                if sparing and not (released or training.something_to_keep):
                    raise
            ran_out_at = f"out of memory at step {training.go_back(self.last_step)}: "
            if not sparing:
                sparing = True
                training.notes.append(ran_out_at + "went on with less of it, as Save memory does")
            elif released:
                training.notes.append(ran_out_at + "went on without what the host can do without")
            else:
                training.notes.append(ran_out_at + training.keep_what_is_known())
                return StopReason.NO_MEMORY

    def _descend(self, optimizer: str, rate: float, sparing: bool) -> StopReason:
        return descend(
            self.training,
            self.objective,
            self.space,
            self.watch,
            self.last_step,
            optimizer=optimizer,
            rate=rate,
            sparing=sparing,
        )

    def _failed(self, error: Exception) -> StopReason:
        """Keeps the best vectors after an error that nobody foresaw. Raises it where there are none yet."""
        training = self.training
        if not training.something_to_keep:
            raise error
        step = training.go_back(self.last_step)
        reason = failures.logged(error, logger, f"step {step} of the training")
        training.notes.append(f"the model failed at step {step}: {reason}; {training.keep_what_is_known()}")
        return StopReason.FAILED
