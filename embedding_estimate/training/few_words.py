"""As few words as are needed for a given figure: more and more of them are tried on one preparation.

The figure is how much is explained of what the weights add to the bare words, `1 - err(phrase) / err(bare words)`, in
the contexts that vectors are chosen by. A try takes a quarter of the learning steps, and the words that are taken get
the rest.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedding_estimate.errors import failures
from embedding_estimate.model.vectors import VectorSpace, count
from embedding_estimate.objectives.objective import Objective, in_words, starting_from
from embedding_estimate.progress import Progress, StopReason
from embedding_estimate.teaching.words import Plan
from embedding_estimate.training import bare_words
from embedding_estimate.training.handlers import Watch, no_state
from embedding_estimate.training.loop import train
from embedding_estimate.training.start import exact_note, exact_vectors, vectors_of_words
from embedding_estimate.training.state import Training

logger = logging.getLogger(__name__)

SHARE = 1 / 4  # of the learning steps, that a try takes
NO_ERROR = 1e-30  # a smaller error of the bare words is none to divide by


def solve(
    objective: Objective[Any], plans: Sequence[Plan], space: VectorSpace, watch: Watch
) -> tuple[Training, Objective[Any]]:
    """The training of the first of the plans that reaches the phase's goal, to its end, and its objective.

    Where none reaches it the last plan is taken, as if no other had been tried. A stop or an error ends in the best so
    far, the last plan's untrained vectors among them; an error is raised where nothing is trained yet.

    Args:
        objective: prepared, for any of the plans.
        plans: at least one, those of few words first, with as many vectors each.
    """
    search = _Search(objective, plans, space, watch)
    try:
        taken = search.taken()
    except Exception as error:
        if not any(one.training.checks for one in search.tries):
            raise
        reason = failures.logged(error, logger, "the trials of words")
        taken = search.best_so_far()
        taken.training.stopped = StopReason.of(error)
        taken.training.notes.append(f"the trials of words failed: {reason}")
    training = taken.training
    if taken not in search.tries:
        search.tries.append(taken)
    training.seconds = sum(one.training.seconds for one in search.tries)
    training.words_tried = [(len(one.words), search.emphasis(one)) for one in search.tries]
    training.notes += search.notes(taken)
    return training, taken.objective


def steps_of_a_try(steps: int) -> int:
    """Of so many learning steps those that a try takes."""
    return math.ceil(SHARE * steps)


@dataclass(eq=False)
class _Try:
    """A plan, and what its training has reached."""

    words: Plan
    objective: Objective[Any]
    training: Training

    @classmethod
    def of(cls, objective: Objective[Any], words: Plan) -> _Try:
        start = vectors_of_words(objective.teacher.task.text, objective.teacher.model, words)
        mine = starting_from(in_words(objective, words), start)
        training = Training(start, mine.held_out_start)
        if exact_vectors(mine.teacher, mine.phase.trajectory, count(start), start):
            training.stopped = StopReason.EXACT
            training.notes.append(exact_note(count(start), count(start)))
        return cls(words, mine, training)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be trained, here or elsewhere."""
        return self.training.stopped == StopReason.INTERRUPTED or self.training.stopped.by_error


class _Search:
    def __init__(self, objective: Objective[Any], plans: Sequence[Plan], space: VectorSpace, watch: Watch):
        self._objective = objective
        self._fewer = plans[:-1]
        self._space = space
        self._watch = replace(watch, on_state=no_state)  # a state would be of one try, and not of the others
        self._bare_words = max(bare_words.error(objective), NO_ERROR)
        self._last = _Try.of(objective, plans[-1])
        self.tries: list[_Try] = []

    def emphasis(self, one: _Try) -> float:
        return 1 - one.training.best_error / self._bare_words

    def taken(self) -> _Try:
        """The try that was trained to its end or, after a stop or an error, the best so far."""
        one = next(filter(self._settles, self._fewer_words()), self._last)
        if one is self._last:
            self.tries.append(one)
        if one.training.stopped != StopReason.EXACT and not one.ended:
            self._run(one, self._objective.phase.steps - one.training.step, self._watch)
        return self.best_so_far() if one.ended else one

    def best_so_far(self) -> _Try:
        """The first that has reached the goal or, without one, the best of what is judged and of one word for each
        weight, which is something without training."""
        judged = [one for one in self.tries if one.training.checks]
        best = min([*judged, self._last], key=lambda one: one.training.best_error)
        best = next(filter(self._reached, judged), best)
        for other in (one.training for one in self.tries if one.ended and one is not best):
            best.training.stopped = other.stopped
            best.training.notes += [line for line in other.notes if line not in best.training.notes]
        return best

    def _fewer_words(self) -> Iterator[_Try]:
        """The plans but the last, each trained for a while."""
        steps = steps_of_a_try(self._objective.phase.steps)
        total = steps * len(self._fewer)
        for number, words in enumerate(self._fewer):
            one = _Try.of(self._objective, words)
            self.tries.append(one)
            if not self._reached(one):
                self._run(one, steps, self._quietly(number * steps, total))
            yield one

    def _quietly(self, before: int, total: int) -> Watch:
        """Who watches a try, of whose vectors nobody hears."""

        def on_progress(progress: Progress) -> None:
            self._watch.on_progress(Progress("words", before + progress.done, total))

        return replace(self._watch, save_every=0, preview_every=0, on_progress=on_progress)

    def _settles(self, one: _Try) -> bool:
        return one.ended or self._reached(one)

    def _reached(self, one: _Try) -> bool:
        return one.training.stopped == StopReason.EXACT or self.emphasis(one) >= self._objective.phase.emphasis_goal

    def _run(self, one: _Try, steps: int, watch: Watch) -> None:
        if steps:
            objective = starting_from(one.objective, one.training.best)
            objective = replace(objective, phase=replace(objective.phase, steps=steps))
            train(one.training, objective, self._space, watch)

    def notes(self, taken: _Try) -> list[str]:
        goal = self._objective.phase.emphasis_goal
        figures = ", ".join(f"{len(one.words)}: {self.emphasis(one):.2f}" for one in self.tries)
        lines = [f"number of words: {len(taken.words)}; emphasis explained by each number tried: {figures}"]
        if not taken.ended and not self._reached(taken):
            lines.append(f"emphasis_goal={goal:g}: no number of words reached it, so there is one for each weight")
        return lines
