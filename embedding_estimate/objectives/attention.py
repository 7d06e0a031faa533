"""The Attention part: what every cross-attention of the U-Net reads, on queries recorded once from the teacher.

    loss = sum over rows r of (g_r' m_r(vectors) - g_r' m_r(prompt))^2

m_r is what row r of a cross-attention gathers, g_r how much the prediction moves with it; see `probes`. The U-Net sees
text nowhere else, so vectors that are read as the prompt is have its effect. The U-Net runs while preparing only: a
step costs one pass through the text encoder and a few small attention products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from embedding_estimate.host import BorrowedModel, Conditioning, Vectors
from embedding_estimate.memory import Prober
from embedding_estimate.objectives import Loss, check_effect, check_matchable, mean, seeds_of
from embedding_estimate.probes import Probes
from embedding_estimate.settings import Settings
from embedding_estimate.teacher import SELECT_SEED, Teacher, Trajectory, error

SAMPLER = "Euler"  # of all trajectories: cheap, and its latents are like those of use


@dataclass(frozen=True)
class Lesson:
    """What is known of one template."""

    template: str
    train: Probes
    select: Probes
    calibration: float  # true error of the start over the error that `select` foresees for it
    empty: float  # true error of the empty prompt


class AttentionObjective:
    rows = 800  # of each layer, to train on, or more for
    readings = 4  # of each number that is trained: with fewer, what is learned is these rows
    train_states = 32  # that they are spread over, from
    train_seeds = 6  # trajectories, shared among the templates; if need be and this allows, one for each other prompt
    select_rows = 150
    select_states = 16
    select_seeds = 2
    check_every = 10  # a check is a forward pass of the encoder and of fewer rows, a third of a step

    def __init__(self, settings: Settings, teacher: Teacher, loss: Loss):
        self.settings = settings
        self.teacher = teacher
        self.loss_function = loss
        share = len(settings.template_list)
        self._trajectory = replace(Trajectory.of(settings), sampler=SAMPLER)
        others = len(teacher.task.other_prompts)
        self._train_seeds = max(self.train_seeds // share, 1, min(others, self.train_seeds))  # of each template
        self._select_seeds = max(self.select_seeds // share, 1, min(others, self.train_seeds))
        evaluations = teacher.model.evaluations(SAMPLER, self._trajectory.steps)
        recorded = share * evaluations * (self._train_seeds + self._select_seeds)
        self.states_to_record = recorded + self.train_states + self.select_states  # and to probe
        self.notes: list[str] = []
        self.held_out_empty = 0.0
        self.held_out_start = 0.0
        self._lessons: list[Lesson] = []
        self._scale = 1.0  # root mean squared difference of readings at the start
        self._start = 1.0  # loss at the start, in those units

    def prepare(self, start: Vectors) -> None:
        settings, model = self.settings, self.teacher.model
        numbers = sum(value.numel() for value in start.values())
        self.rows = max(self.rows, math.ceil(self.readings * numbers / len(model.cross_attentions())))
        prober = Prober(
            model,
            rows=min(1.0, settings.attention_memory / _megabytes(model, self.rows + self.select_rows)),
            batch=settings.batch,
            seed=settings.seed,
            checkpointed=settings.checkpointing,
            on_pass=self.teacher.on_record,
        )
        for template in settings.template_list:
            self._lessons.append(self._lesson(template, start, prober))
        self.notes += prober.notes
        self.held_out_empty = mean([lesson.empty for lesson in self._lessons])
        check_effect(self.held_out_empty, self.settings.text)
        self.held_out_start = self.held_out(start)
        with torch.no_grad():
            squares = [
                float((lesson.train.read(its) - lesson.train.aim).square().mean())
                for lesson, its in self._encoded(start, self._lessons)
            ]
            self._scale = max(math.sqrt(mean(squares)), 1e-12)
            self._start = max(float(self.loss(start, self._lessons)), 1e-12)

    def _lesson(self, template: str, start: Vectors, prober: Prober) -> Lesson:
        text = template.replace("{}", self.settings.text)
        side = self.teacher.replaced(text, self._trajectory)
        check_matchable(side, "after the cross-attentions", self.notes)
        share = len(self.settings.template_list)
        number = len(self._lessons)
        mine = seeds_of(self.settings.seed, self._train_seeds, number)
        theirs = seeds_of(SELECT_SEED, self._select_seeds, number)
        seen = self.teacher.record(side, self._trajectory, [*mine, *theirs], self.settings.batch)
        held_out = seen.seed >= SELECT_SEED
        train = prober(side, seen[~held_out].spread(self.train_states // share), self.rows // share)
        states = seen[held_out].spread(self.select_states // share)
        select = prober(side, states, self.select_rows // share)
        with torch.no_grad():
            student = self.teacher.student(start, template)
            foreseen = float(select.error(student.stages[0].parts[0][0]))
            calibration = error(student, states, self.settings.batch) / max(foreseen, 1e-30)
            empty = self.teacher.error_of_nothing(states, self._trajectory, self.settings.batch)
        return Lesson(template, train, select, calibration, empty)

    def draw(self, generator: torch.Generator) -> list[Lesson]:
        return [self._lessons[int(torch.randint(len(self._lessons), (), generator=generator))]]

    def fixed(self, generator: torch.Generator, *, sparing: bool) -> list[list[Lesson]]:
        """As many lessons together as a batch may hold and divides them evenly; one at a time where `sparing`."""
        number, most = len(self._lessons), 1 if sparing else self.settings.batch
        size = max(size for size in range(1, most + 1) if number % size == 0)
        return [self._lessons[first : first + size] for first in range(0, number, size)]

    def loss(self, vectors: Vectors, drawn: Sequence[Lesson]) -> Tensor:
        losses = [_at_once(partial(self._loss_of, lesson), its) for lesson, its in self._encoded(vectors, drawn)]
        return torch.stack(losses).mean() / self._start

    def _loss_of(self, lesson: Lesson, its: Conditioning) -> Tensor:
        return self.loss_function(lesson.train.read(its)[None] / self._scale, lesson.train.aim[None] / self._scale)

    @torch.no_grad()
    def held_out(self, vectors: Vectors) -> float:
        """Foreseen by held-out rows, in units of the true error at the start."""
        return mean(
            [
                lesson.calibration * float(lesson.select.error(its))
                for lesson, its in self._encoded(vectors, self._lessons)
            ]
        )

    def _encoded(self, vectors: Vectors, lessons: Sequence[Lesson]) -> list[tuple[Lesson, Conditioning]]:
        """Each lesson with the vectors in its template."""
        encoded = self.teacher.encode_each(vectors, [lesson.template for lesson in lessons])
        return list(zip(lessons, encoded, strict=True))


class Sketch(AttentionObjective):
    """The same from one short trajectory: soon something to keep, and a better place for the rest to start from."""

    rows = 200
    readings = 1
    train_states = 6
    train_seeds = 1
    select_rows = 100
    select_states = 4
    select_seeds = 1


def _at_once(loss: Callable[[Conditioning], Tensor], conditioning: Conditioning) -> Tensor:
    """The loss of a conditioning, differentiable in it, of whose own graph only the gradient is kept.

    So of several templates, whose passes through the text encoder are held together, one is read at a time.
    """
    parts = [part for part in (conditioning.context, conditioning.vector) if part is not None]
    if not any(part.requires_grad for part in parts):
        return loss(conditioning)
    leaves = [part.detach().requires_grad_() for part in parts]
    value = loss(Conditioning(*leaves))
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    products = [(part * g).sum() for part, g in zip(parts, gradients, strict=True) if g is not None]
    onward = torch.stack(products).sum()
    return value.detach() + (onward - onward.detach())  # zero is added, and its gradient


def _megabytes(model: BorrowedModel, rows: int) -> float:
    """What so many rows of each layer take: queries in the precision of the U-Net, and gradients."""
    weights = [cast(Tensor, attention.to_q.weight) for attention in model.cross_attentions()]
    return sum(len(weight) * (weight.element_size() + 4) for weight in weights) * rows / 2**20
