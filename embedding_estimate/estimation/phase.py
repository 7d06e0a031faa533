"""One phase of an estimate: its objective is prepared, then trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from embedding_estimate.errors import failures
from embedding_estimate.estimation.opening import Opening
from embedding_estimate.estimation.resuming import Position, state_of
from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.model.host import Vectors
from embedding_estimate.model.meter import Meter
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.objectives import preparation_of
from embedding_estimate.objectives.objective import Objective, Preparation, starting_from
from embedding_estimate.progress import OnProgress, Progress, Stopped, StopReason
from embedding_estimate.teaching.plan import Phase, phases
from embedding_estimate.teaching.teacher import Teacher
from embedding_estimate.teaching.words import Plan
from embedding_estimate.training import bare_words, few_words
from embedding_estimate.training.handlers import OnState, Watch
from embedding_estimate.training.loop import train
from embedding_estimate.training.name_weight import solve
from embedding_estimate.training.state import Training

logger = logging.getLogger(__name__)


def train_phases(
    begun: Opening, at: Position, watch: Watch, space: VectorSpace, meter: Meter
) -> tuple[Training, Teacher]:
    """All phases from that position on; the teacher returned has the weight and the words that were found."""
    training, teacher, resumed = at.training, at.teacher, at.run
    planned = phases(begun.settings)
    for number, phase in enumerate(planned[at.phase :], at.phase):
        watched = replace(watch, on_state=partial(_offer, watch.on_state, begun, teacher, number))
        if number > at.phase:
            watched.on_state(partial(_before_a_phase, training))
        training, teacher = train_phase(
            training,
            begun.plans,
            begun.start,
            phase,
            watched,
            teacher,
            space,
            meter,
            last=phase is planned[-1],
            resumed=resumed,
        )
        resumed = None
    return training, teacher


def _offer(on_state: OnState, begun: Opening, teacher: Teacher, number: int, collect: Callable[[], Tree]) -> None:
    on_state(lambda: state_of(begun, teacher, number, collect()))


def _before_a_phase(training: Training) -> Tree:
    return {"training": training.state(), "run": None}


def train_phase(
    training: Training,
    plans: Sequence[Plan],
    start: Vectors,
    phase: Phase,
    watch: Watch,
    teacher: Teacher,
    space: VectorSpace,
    meter: Meter,
    *,
    last: bool,
    resumed: Tree | None = None,
) -> tuple[Training, Teacher]:
    """One phase from what the ones before it have reached; none after a stop, which keeps that.

    Where the weight of the name or the number of words is open it is found, and the teacher returned has it. Where
    memory runs out in a later phase, or the model fails, what there is is kept.

    `resumed` is that of `loop.train`. An error before that goes on is raised, so that its state remains.
    """
    if training.stopped in (StopReason.INTERRUPTED, StopReason.EXACT) or training.stopped.by_error:
        return training, teacher
    first = not training.step
    try:
        with meter.interruptible(watch.stop.check):
            with meter.stage("prepare"):
                objective = _prepared(preparation_of(phase, teacher), start, teacher, watch.on_progress)
            if not first and not resumed:
                objective = starting_from(objective, training.best)
            if phase.finds_weight:
                return _at_the_best_weight(training, objective, space, watch)
    except Exception as error:
        if first or (resumed and not isinstance(error, Stopped)):
            raise
        _keep_what_was_reached(training, error, phase)
        return training, teacher
    training, objective = _trained(training, objective, plans, space, watch, resumed)
    if last:
        bare_words.keep_where_better(training, objective)
    return training, objective.teacher


def _at_the_best_weight(
    training: Training, objective: Objective[Any], space: VectorSpace, watch: Watch
) -> tuple[Training, Teacher]:
    """The training with the weight that gets it furthest, and the teacher of that weight."""
    weight, best = solve(objective, space, training, watch)
    if watch.stop.stopped:
        best.stopped = StopReason.INTERRUPTED
    return best, objective.teacher.typed(weight)


def _keep_what_was_reached(training: Training, error: Exception, phase: Phase) -> None:
    """Ends a training before one of its later phases; a stop of the user's needs no note."""
    if isinstance(error, Stopped):
        training.stopped = StopReason.INTERRUPTED
        return
    before = f"before the {phase.part} part"
    training.stopped = StopReason.of(error)
    training.notes.append(f"{failures.logged(error, logger, before)} {before}: what was reached by then is kept")


def _trained(
    training: Training,
    objective: Objective[Any],
    plans: Sequence[Plan],
    space: VectorSpace,
    watch: Watch,
    resumed: Tree | None,
) -> tuple[Training, Objective[Any]]:
    """The training at its end and the objective that it had, in the words that it found where they were open."""
    if objective.phase.finds_words:
        return few_words.solve(objective, plans, space, watch)
    train(training, objective, space, watch, resumed)
    return training, objective


def _prepared(preparation: Preparation, start: Vectors, teacher: Teacher, on_progress: OnProgress) -> Objective[Any]:
    done, total = 0, preparation.states_to_record

    def tell(states: int) -> None:
        nonlocal done
        done = min(done + states, total)
        on_progress(Progress("prepare", done, total))

    teacher.on_record = tell
    objective = preparation.prepare(start)
    if total:
        tell(total)  # second-order samplers ask a little less often than schedules count
    teacher.on_record = lambda states: None
    return objective
