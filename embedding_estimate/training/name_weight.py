"""The weight to type an embedding's name with, solved for.

The host scales the rows of `(name:1.2)` after the text encoder, which is just what vectors alone cannot do. So one
number beside the name can make up for most of what is out of their reach; which one depends on the prompt.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from embedding_estimate.errors import failures
from embedding_estimate.fidelity.among_words import Context
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.objectives.objective import Objective, at_weight
from embedding_estimate.progress import Progress, Stopped, StopReason
from embedding_estimate.settings import PARAMETERS
from embedding_estimate.teaching.teacher import SELECT_SEED
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
    batch = objective.phase.batch
    contexts = [
        Context.of(objective.teacher, each, SELECT_SEED, batch) for each in objective.teacher.contexts.select[:CONTEXTS]
    ]
    to_the_end = objective.phase.steps
    total = (len(GRID) + 3) * TRIAL_STEPS + (FINALISTS + 1) * to_the_end
    trials: dict[float, Training] = {}
    safe = {1.0}
    done = 0

    def run(weight: float, steps: int, on_preview: OnPreview = lambda teacher, vectors, step: None) -> None:
        nonlocal done
        watch.stop.check()
        training = trials.setdefault(weight, start.continued())
        before = done - training.step

        def on_progress(progress: Progress) -> None:
            watch.on_progress(Progress("weigh", before + progress.done, total))

        of_steps = replace(objective, phase=replace(objective.phase, steps=steps))
        trial = replace(watch, save_every=0, on_progress=on_progress, on_preview=on_preview)  # else several of one step
        train(training, at_weight(of_steps, weight, training.best), space, trial)
        done += steps
        if training.stopped.by_error:  # as it would at the other weights
            raise Stopped

    def harmless(weights: Iterable[float]) -> Iterator[float]:
        """Of these weights, the best first."""
        for weight in sorted(weights, key=lambda weight: trials[weight].best_error):
            if weight == 1 or among_words(weight, trials[weight].step) >= among_words(1.0, trials[1.0].step) - HARM:
                safe.add(weight)
                yield weight
            else:
                safe.discard(weight)

    @functools.cache
    def among_words(weight: float, _step: int) -> float:
        """What is explained inside other prompts, as trained up to that step."""
        typed, vectors = objective.teacher.typed(weight), trials[weight].best
        return 1 - sum(here.error(typed, vectors, batch) for here in contexts) / sum(here.nothing for here in contexts)

    def best() -> float:
        for weight in (1.0, *GRID):
            run(weight, TRIAL_STEPS)
        middle = next(harmless(trials))
        if middle != 1:
            for weight in (middle - FINER, middle + FINER):
                run(round(weight, 2), TRIAL_STEPS)
        finalists = dict.fromkeys((1.0, *islice(harmless(trials), FINALISTS)))
        for weight in finalists:
            run(weight, to_the_end, watch.on_preview)
        watch.on_progress(Progress("weigh", total, total))  # fewer than `total` where the bare name is in front
        return next(harmless(finalists))

    try:
        weight = best()
    except Exception as error:
        reached = [
            weight
            for weight in safe & trials.keys()
            if len(trials[weight].checks) > len(start.checks) or trials[weight].stopped.by_error
        ]
        if not reached:
            raise
        weight = min(reached, key=lambda weight: trials[weight].best_error)
        failed = {one.stopped: one.notes[-1] for one in trials.values() if one.stopped.by_error}
        if not isinstance(error, Stopped):
            reason = failures.logged(error, logger, "the trials of weights")
            failed = {StopReason.FAILED: f"the trials of weights failed: {reason}"}
        trials[weight].stopped = next(iter(failed), StopReason.INTERRUPTED)
        trials[weight].notes = list(dict.fromkeys([*trials[weight].notes, *failed.values()]))
    found = trials[weight]
    found.seconds = start.seconds + sum(training.seconds - start.seconds for training in trials.values())
    return weight, found


def told(provenance: Mapping[str, Any]) -> float:
    """The weight that a file says its name is typed with; 1 where it says none that can be one."""
    weight = provenance.get("typed_weight")
    (parameter,) = (parameter for parameter in PARAMETERS if parameter.name == "typed_weight")
    return float(weight) if weight and parameter.problem(weight) is None else 1.0
