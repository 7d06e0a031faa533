"""Protocol v2's figures (see `embedding_estimate.fidelity.protocol`), many times for one prompt.

The teacher's states and the baselines' errors are found once; vectors are then measured for one pass over the states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from embedding_estimate.fidelity import among_words
from embedding_estimate.fidelity.among_words import NO_EMPHASIS, Context
from embedding_estimate.fidelity.protocol import SEEDS, TRAJECTORY
from embedding_estimate.model.host import BorrowedModel, Vectors
from embedding_estimate.teaching.sides import States, error
from embedding_estimate.teaching.teacher import Task, Teacher

BATCH = 16  # states at once; changes the speed only
SPARSE = 5  # one state of so many, which is prime to the number of seeds


@dataclass(frozen=True)
class Score:
    """How faithful some vectors are."""

    error: float  # err(embedding)
    explained: float
    emphasis_explained: float | None  # None where the prompt's weights do nothing

    @property
    def figure(self) -> float:
        """What a prompt is judged by."""
        return self.explained if self.emphasis_explained is None else self.emphasis_explained


@dataclass(frozen=True)
class Yardstick:
    """One prompt's report states, and the errors that others are compared with."""

    task: Task  # at the model's own size
    states: States
    empty: float  # err(empty prompt)
    unweighted: float  # err(prompt with every weight 1)
    contexts: Sequence[Context]

    @classmethod
    def of(cls, model: BorrowedModel, task: Task) -> Yardstick:
        teacher = Teacher(model, task)
        states = teacher.record(teacher.replaced(task.text, TRAJECTORY), TRAJECTORY, SEEDS, len(SEEDS))
        empty = teacher.replaced("", TRAJECTORY)
        unweighted = teacher.replaced(task.text, TRAJECTORY, weights=False)
        contexts = [
            Context.of(teacher, template, among_words.TRAJECTORY, SEEDS[number % len(SEEDS)], BATCH)
            for number, template in enumerate(teacher.contexts.report)
        ]
        return cls(task, states, error(empty, states, BATCH), error(unweighted, states, BATCH), contexts)

    def typed(self, weight: float) -> Yardstick:
        """The same for vectors that are typed with a weight."""
        return replace(self, task=replace(self.task, typed_weight=weight))

    @property
    def emphasised(self) -> bool:
        return self.unweighted >= NO_EMPHASIS * self.empty

    def glance(self, model: BorrowedModel, vectors: Vectors) -> float:
        """err(vectors) over a few of the states, all seeds and noise levels among them: to tell better from worse."""
        return error(Teacher(model, self.task).student(vectors), self.states[::SPARSE], BATCH)

    def measure(self, model: BorrowedModel, vectors: Vectors) -> Score:
        """One pass over the states with the vectors in the prompt's place."""
        found = error(Teacher(model, self.task).student(vectors), self.states, BATCH)
        return Score(found, 1 - found / self.empty, 1 - found / self.unweighted if self.emphasised else None)

    def inside(self, model: BorrowedModel, vectors: Vectors) -> list[float]:
        """err(T[vectors]) for each of `contexts`."""
        teacher = Teacher(model, self.task)
        return [context.error(teacher, vectors, BATCH) for context in self.contexts]
