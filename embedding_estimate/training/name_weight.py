"""The weight to type an embedding's name with, solved for.

The host scales the rows of `(name:1.2)` after the text encoder, which is just what vectors alone cannot do. So one
number beside the name can make up for most of what is out of their reach; which one depends on the prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from embedding_estimate.errors import failures
from embedding_estimate.fidelity import among_words
from embedding_estimate.fidelity.among_words import Context
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.objectives.objective import Objective, at_weight
from embedding_estimate.progress import Progress, Stopped, StopReason
from embedding_estimate.teaching.teacher import SELECT_SEED, Teacher
from embedding_estimate.training.handlers import OnPreview, Watch
from embedding_estimate.training.loop import train
from embedding_estimate.training.state import Training

logger = logging.getLogger(__name__)

GRID = (0.8, 0.9, 1.1, 1.2, 1.3, 1.45)
FINER = 0.05  # on both sides of the best of them
TRIAL_STEPS = 25  # what tells a good weight from a poor one
FINALISTS = 2  # beside the bare name; trained to the end, for gain and harm after a few steps are others than then
CONTEXTS = 3  # of those that are chosen by
HARM = 0.02  # of `explained` inside other prompts, more than which a weight may not cost


def solve(objective: Objective[Any], space: VectorSpace, start: Training, watch: Watch) -> tuple[float, Training]:
    """The weight with which trainings get furthest on the select set, of those that do no harm inside other prompts,
    and that training, to its end.

    The mode "Original" restores the mean of a whole chunk, so that a weight is felt by its neighbours. A stop or an
    error ends in the best so far of what was last found to do no harm; it is raised where there is nothing yet.
    """
    trials = _Trials(objective, space, start, watch)
    try:
        weight = trials.best()
    except Exception as error:
        weight = trials.best_so_far(error)
    best = trials.by_weight[weight]
    best.seconds = start.seconds + sum(training.seconds - start.seconds for training in trials.by_weight.values())
    return weight, best


def contexts_of(teacher: Teacher, batch: int) -> list[Context]:
    """Other prompts, in which harm is looked for."""
    templates = teacher.contexts.select[:CONTEXTS]
    return [Context.of(teacher, template, among_words.TRAJECTORY, SELECT_SEED, batch) for template in templates]


class _Trials:
    """Trainings at several weights, from one start on one preparation."""

    def __init__(self, objective: Objective[Any], space: VectorSpace, start: Training, watch: Watch):
        self.objective, self.space, self.start, self.watch = objective, space, start, watch
        self.batch = objective.phase.batch
        self.contexts = contexts_of(objective.teacher, self.batch)
        self.total = (len(GRID) + 3) * TRIAL_STEPS + (FINALISTS + 1) * objective.phase.steps
        self.done = 0  # learning steps of all
        self.by_weight: dict[float, Training] = {}
        self.safe = {1.0}  # weights that were last found to do no harm
        self._explained: dict[tuple[float, int], float] = {}

    def best(self) -> float:
        """The best weight, after trials of all and a training to the end of the first."""
        for weight in (1.0, *GRID):
            self.run(weight, TRIAL_STEPS)
        middle = next(self.harmless(self.by_weight))
        if middle != 1:
            for weight in (middle - FINER, middle + FINER):
                self.run(round(weight, 2), TRIAL_STEPS)
        finalists = dict.fromkeys((1.0, *islice(self.harmless(self.by_weight), FINALISTS)))
        for weight in finalists:
            self.run(weight, self.objective.phase.steps, self.watch.on_preview)
        # fewer than `total` where the bare name is in front
        self.watch.on_progress(Progress("weigh", self.total, self.total))
        return next(self.harmless(finalists))

    def run(self, weight: float, steps: int, on_preview: OnPreview = lambda teacher, vectors, step: None) -> None:
        """So many steps more at that weight. Raises `Stopped` for a stop, and where the others would fail as well."""
        self.watch.stop.check()
        training = self.by_weight.setdefault(weight, self.start.continued())
        before = self.done - training.step

        def on_progress(progress: Progress) -> None:
            self.watch.on_progress(Progress("weigh", before + progress.done, self.total))

        of_steps = replace(self.objective, phase=replace(self.objective.phase, steps=steps))
        # without snapshots, of which there would be several of one step
        trial = replace(self.watch, save_every=0, on_progress=on_progress, on_preview=on_preview)
        train(training, at_weight(of_steps, weight, training.best), self.space, trial)
        self.done += steps
        if training.stopped.by_error:
            raise Stopped

    def harmless(self, weights: Iterable[float]) -> Iterator[float]:
        """Of these weights those that do no harm, the best first."""
        for weight in sorted(weights, key=self._error):
            if weight == 1 or self.among_words(weight) >= self.among_words(1.0) - HARM:
                self.safe.add(weight)
                yield weight
            else:
                self.safe.discard(weight)

    def among_words(self, weight: float) -> float:
        """What is explained inside other prompts, as trained so far."""
        training = self.by_weight[weight]
        key = weight, training.step
        if key not in self._explained:
            typed = self.objective.teacher.typed(weight)
            error = sum(context.error(typed, training.best, self.batch) for context in self.contexts)
            self._explained[key] = 1 - error / sum(context.nothing for context in self.contexts)
        return self._explained[key]

    def best_so_far(self, error: Exception) -> float:
        """Where they end early by `error`, which is raised where there is nothing yet: the best weight by then, whose
        training says why it ended."""
        reached = [weight for weight in self.safe & self.by_weight.keys() if self._got_somewhere(weight)]
        if not reached:
            raise error
        weight = min(reached, key=self._error)
        failed = {one.stopped: one.notes[-1] for one in self.by_weight.values() if one.stopped.by_error}
        if not isinstance(error, Stopped):
            reason = failures.logged(error, logger, "the trials of weights")
            failed = {StopReason.FAILED: f"the trials of weights failed: {reason}"}
        training = self.by_weight[weight]
        training.stopped = next(iter(failed), StopReason.INTERRUPTED)
        training.notes = list(dict.fromkeys([*training.notes, *failed.values()]))
        return weight

    def _got_somewhere(self, weight: float) -> bool:
        training = self.by_weight[weight]
        return len(training.checks) > len(self.start.checks) or training.stopped.by_error

    def _error(self, weight: float) -> float:
        return self.by_weight[weight].best_error
