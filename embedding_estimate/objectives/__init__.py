"""What is matched. One file per training part; `make_objective` knows them all."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from embedding_estimate.errors import ModelError, PromptError, quoted
from embedding_estimate.model.contexts import Contexts
from embedding_estimate.model.host import Vectors
from embedding_estimate.settings import Settings
from embedding_estimate.settings.parts import SKETCH
from embedding_estimate.teaching.sides import Side, alike
from embedding_estimate.teaching.teacher import Teacher, Trajectory

Loss = Callable[[Tensor, Tensor], Tensor]


class Objective(Protocol):
    """Built from the settings and a teacher, prepared once, then asked for losses. No teacher call in between."""

    teacher: Teacher
    loss_function: Loss
    states_to_record: int  # by `prepare`, as the teacher's `on_record` counts them
    notes: list[str]  # what the user should know about this prompt and this part
    held_out_empty: float  # `held_out` of the empty prompt, so that 1 - held_out / held_out_empty is `explained`
    held_out_start: float  # `held_out` of the start, measured by `prepare`
    check_every: int  # steps between two calls of `held_out` that keep them under 5 % of the training's time

    def prepare(self, start: Vectors) -> None:
        """Runs the teacher; scales the loss to 1 at the start. Raises `PromptError` where it cannot match."""
        ...

    def draw(self, generator: torch.Generator) -> Any:
        """What one step is compared on: a template, and states where the part has them."""
        ...

    def fixed(self, generator: torch.Generator, *, sparing: bool) -> list[Any]:
        """What all steps are compared on where the optimizer needs one function; `sparing` memory in more portions."""
        ...

    def loss(self, vectors: Vectors, drawn: Any) -> Tensor:
        """Scalar, about 1 at the start; differentiable in the vectors."""
        ...

    def held_out(self, vectors: Vectors) -> float:
        """Mean squared error on what is never trained on; decides which vectors are kept."""
        ...

    def held_out_among_words(self, vectors: Vectors) -> float | None:
        """The same without the bare prompt; None where there is nothing else to choose by."""
        ...


def check_text(teacher: Teacher, trajectory: Trajectory) -> None:
    """Raises `PromptError` for a prompt that is read as the empty one all along, which leaves nothing to measure by."""
    text = teacher.task.text
    (((nothing, _),),) = (stage.parts for stage in teacher.replaced("", trajectory).stages)
    stages = teacher.replaced(text, trajectory).stages
    if all(alike(conditioning, nothing) for stage in stages for conditioning, _ in stage.parts):
        check_effect(0.0, text)


def check_effect(empty: float, text: str) -> None:
    """Judges `held_out` of the empty prompt. Raises `PromptError` where the prompt does nothing, `ModelError` where the
    model gives no numbers."""
    if not math.isfinite(empty):
        raise ModelError(
            "the model's predictions are not finite numbers, as half precision makes of some models: run it in fp32, "
            "in a WebUI with 'Upcast cross attention layer to float32' or --no-half"
        )
    if empty == 0:
        raise PromptError(f"text={quoted(text)} does what the empty prompt does: write another")


SCHEDULED = "the prompt changes with the step and an embedding does not: it is matched on average"


def check_matchable(side: Side, where: str, notes: list[str]) -> None:
    """For parts that match a context: notes a schedule, and raises `PromptError` for `AND` and the weights behind its
    parts, with which predictions are composed `where` the part does not look."""
    if any(len(stage.parts) > 1 for stage in side.stages):
        raise PromptError(f"the prompt composes predictions with AND, {where}: choose the U-Net part, or drop AND")
    if side.composed:
        weight = side.stages[0].parts[0][1]
        raise PromptError(
            f"the prompt ends in a colon and a number, which as in parts of AND weigh its prediction with {weight:g}, "
            f"{where}: write (words:{weight:g}), put a comma behind, or choose the U-Net part"
        )
    if side.scheduled and SCHEDULED not in notes:
        notes.append(SCHEDULED)


def contexts_of(settings: Settings, teacher: Teacher) -> Contexts:
    """What an embedding is trained in, the bare prompt `{}` first, and what the best is chosen by: the templates of the
    settings or, where they hold none, the model's contexts."""
    own = teacher.contexts
    if settings.template_list:
        return replace(own, train=settings.template_list, select=settings.template_list)
    return replace(own, train=("{}", *own.train), select=("{}", *own.select))


FEW = 3  # of the model's contexts, for parts in which each has a cost of its own


def templates_of(settings: Settings, teacher: Teacher) -> tuple[str, ...]:
    """The templates, or a few of the model's contexts; of a prompt with `AND` only the bare one, where it is among
    them, since words around the prompt would stand in one of its parts only."""
    templates = settings.template_list or tuple(contexts_of(settings, teacher).train[:FEW])
    composed = teacher.replaced(settings.text, Trajectory.of(settings)).composed
    return tuple(template for template in templates if not composed or template == "{}") or templates


def seeds_of(first: int, number: int, lesson: int) -> range:
    """Seeds from `first` on, others for each lesson: the more pictures the better."""
    return range(first + lesson * number, first + (lesson + 1) * number)


class HasTemplate(Protocol):
    @property
    def template(self) -> str: ...


L = TypeVar("L", bound=HasTemplate)


class ChosenByLessons(Generic[L]):
    """The half of an `Objective` that judges vectors, over the lessons that the best are chosen by."""

    def to_choose_by(self) -> Sequence[L]:
        raise NotImplementedError

    def error_in(self, vectors: Vectors, lessons: Sequence[L]) -> float:
        """Mean squared error over some of those lessons."""
        raise NotImplementedError

    @torch.no_grad()
    def held_out(self, vectors: Vectors) -> float:
        return self.error_in(vectors, self.to_choose_by())

    @torch.no_grad()
    def held_out_among_words(self, vectors: Vectors) -> float | None:
        lessons = [lesson for lesson in self.to_choose_by() if lesson.template.strip() != "{}"]
        return self.error_in(vectors, lessons) if lessons else None


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def starting_from(objective: Objective, start: Vectors) -> Objective:
    """A prepared objective for a training that starts elsewhere."""
    other = copy.copy(objective)
    other.held_out_start = other.held_out(start)
    return other


def comparing(objective: Objective, loss: Loss) -> Objective:
    """A prepared objective that compares by another loss."""
    other = copy.copy(objective)
    other.loss_function = loss
    return other


def make_objective(settings: Settings, teacher: Teacher, loss: Loss) -> Objective:
    """The objective of `settings.part`."""
    from embedding_estimate.objectives.attention import AttentionObjective, Sketch
    from embedding_estimate.objectives.transformer import TransformerObjective
    from embedding_estimate.objectives.unet import UNetObjective

    parts: dict[str, Callable[[Settings, Teacher, Loss], Objective]] = {
        SKETCH: Sketch,
        "Attention": AttentionObjective,
        "Transformer": TransformerObjective,
        "U-Net": UNetObjective,
    }
    return parts[settings.part](settings, teacher, loss)
