"""What a training part gives the loop: something that prepares an objective, and the objective itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from embedding_estimate.model.host import Vectors
from embedding_estimate.optimizers import FULL
from embedding_estimate.teaching.plan import Phase
from embedding_estimate.teaching.teacher import Teacher
from embedding_estimate.teaching.words import Word

Loss = Callable[[Tensor, Tensor], Tensor]


class HasTemplate(Protocol):
    """What is known of one context."""

    @property
    def template(self) -> str: ...


L = TypeVar("L", bound=HasTemplate)
Prepared = TypeVar("Prepared", bound="Objective[Any]")


class Preparation(Protocol):
    """All that needs the teacher, done once."""

    states_to_record: int  # by `prepare`, as the teacher's `on_record` counts them
    check_every: int  # steps between two calls of `held_out` that keep them under 5 % of the training's time

    def prepare(self, start: Vectors) -> Objective[Any]:
        """Runs the teacher; the loss is 1 at the start. Raises `PromptError` where the part cannot match the prompt."""
        ...


@dataclass(frozen=True)
class Objective(ABC, Generic[L]):
    """What is compared in a learning step, and what judges vectors. It asks the teacher for no more states."""

    teacher: Teacher
    phase: Phase
    loss_function: Loss
    check_every: int
    notes: tuple[str, ...]  # what the user should know about this prompt and this part
    held_out_empty: float  # `held_out` of the empty prompt, so that 1 - held_out / held_out_empty is `explained`
    held_out_start: float  # `held_out` of the start

    @abstractmethod
    def trained_in(self) -> Sequence[L]:
        """What is known of each context that vectors are trained in."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Any:
        """What one step is compared on: a template, and states where the part has them."""

    @abstractmethod
    def fixed(self, generator: torch.Generator, *, sparing: bool) -> list[Any]:
        """What all steps are compared on where the optimizer needs one function; `sparing` memory in more portions."""

    def of_a_step(self, generator: torch.Generator, *, sparing: bool) -> list[Any]:
        """What the loss of one step is a mean over."""
        full = self.phase.optimizer in FULL
        return self.fixed(generator, sparing=sparing) if full else [self.draw(generator)]

    def stages(self) -> Sequence[tuple[Objective[L], int]]:
        """What the phase's steps are taken on, one after the other, with the steps of each."""
        return [(self, self.phase.steps)]

    @abstractmethod
    def loss(self, vectors: Vectors, drawn: Any) -> Tensor:
        """Scalar, about 1 at the start; differentiable in the vectors."""

    @abstractmethod
    def to_choose_by(self) -> Sequence[L]:
        """What the best vectors are chosen by."""

    @abstractmethod
    def error_in(self, vectors: Vectors, examples: Sequence[L]) -> float:
        """Mean squared error over some of what is chosen by."""

    @torch.no_grad()
    def held_out(self, vectors: Vectors) -> float:
        """Mean squared error on what is never trained on; decides which vectors are kept."""
        return self.error_in(vectors, self.to_choose_by())

    @torch.no_grad()
    def held_out_among_words(self, vectors: Vectors) -> float | None:
        """The same without the bare prompt; None where there is nothing else to choose by."""
        examples = [example for example in self.to_choose_by() if example.template.strip() != "{}"]
        return self.error_in(vectors, examples) if examples else None


def starting_from(objective: Prepared, start: Vectors) -> Prepared:
    """The objective for a training that starts elsewhere."""
    return replace(objective, held_out_start=objective.held_out(start))


def at_weight(objective: Prepared, weight: float, start: Vectors) -> Prepared:
    """The objective for vectors that are typed with another weight."""
    return starting_from(replace(objective, teacher=objective.teacher.typed(weight)), start)


def in_words(objective: Prepared, words: Sequence[Word]) -> Prepared:
    """The objective for vectors that are typed in these words; its start is the old one's still."""
    return replace(objective, teacher=objective.teacher.in_words(words))


def mean(values: Sequence[float]) -> float:
    """The mean of at least one number."""
    return sum(values) / len(values)
