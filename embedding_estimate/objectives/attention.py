"""The Attention part: what every cross-attention of the U-Net reads, on queries recorded once from the teacher.

    loss = mean over contexts T of the sum over rows r of (g_r' m_r(T[vectors]) - g_r' m_r(T[prompt]))^2

m_r is what row r of a cross-attention gathers, g_r how much the prediction moves with it; see `probes`. The U-Net sees
text nowhere else, so vectors that are read as the prompt is have its effect. The U-Net runs while preparing only: a
step costs one pass through the text encoder and a few small attention products for each context.

Rows are shared among the contexts. Their states come from trajectories in a few of these, and what a prompt reads there
is found without the U-Net in all of them. So many contexts cost no more of it than one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from embedding_estimate.model.host import BorrowedModel, Conditioning, Vectors
from embedding_estimate.objectives import ChosenByLessons, Loss, check_effect, check_matchable, contexts_of, mean
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.probes import Probes
from embedding_estimate.teaching.probing import Prober
from embedding_estimate.teaching.sides import Side, States, error
from embedding_estimate.teaching.teacher import SELECT_SEED, Teacher, Trajectory

SAMPLER = "Euler"  # of all trajectories: cheap, and its latents are like those of use


@dataclass(frozen=True)
class Lesson:
    """What is read in one context."""

    template: str
    probes: Probes


class AttentionObjective(ChosenByLessons[Lesson]):
    rows = 800  # of each layer, to train on, or more for
    readings = 4  # of each number that is trained: with fewer, what is learned is these rows
    portions = 4  # that the rows are dealt out in: where there are several contexts each reads one of them
    train_states = 32  # that they are spread over, from
    train_seeds = 6  # trajectories, in as many of the contexts
    select_rows = 150
    select_states = 16
    select_seeds = 4
    check_every = 10  # a check is a forward pass of the encoder and of fewer rows, a third of a step

    def __init__(self, settings: Settings, teacher: Teacher, loss: Loss):
        self.settings = settings
        self.teacher = teacher
        self.loss_function = loss
        self._contexts = contexts_of(settings, teacher)
        self._trajectory = replace(Trajectory.of(settings), sampler=SAMPLER)
        others = len(teacher.task.other_prompts)  # each of which is to be seen, if this allows
        self._select_seeds = max(self.select_seeds, min(others, self.train_seeds))
        evaluations = teacher.model.evaluations(SAMPLER, self._trajectory.steps)
        recorded = evaluations * (self.train_seeds + self._select_seeds)
        self.states_to_record = recorded + self.train_states + self.select_states  # and to probe
        self.notes: list[str] = []
        self.held_out_empty = 0.0
        self.held_out_start = 0.0
        self._train: list[Lesson] = []
        self._select: list[Lesson] = []
        self._calibration = 1.0  # true error of the start over the error that the rows foresee for it
        self._scale = 1.0  # root mean squared difference of readings at the start
        self._start = 1.0  # loss at the start, in those units

    def prepare(self, start: Vectors) -> None:
        settings, model, contexts = self.settings, self.teacher.model, self._contexts
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
        seen = self._record(contexts.train, settings.seed, self.train_seeds, self.train_states)
        held_out = self._record(contexts.select, SELECT_SEED, self._select_seeds, self.select_states)
        portions = prober(list(seen.values()), self.rows).dealt(min(self.portions, len(contexts.train)))
        dealt = itertools.cycle(portions)
        self._train = [Lesson(each, next(dealt).aimed(self._side(each))) for each in contexts.train]
        probes = prober(list(held_out.values()), self.select_rows)
        self._select = [Lesson(each, probes.aimed(self._side(each))) for each in contexts.select]
        self.notes += prober.notes
        self._calibrate(start, held_out)
        self.held_out_start = self.held_out(start)
        with torch.no_grad():
            squares = [
                float((lesson.probes.read(its) - lesson.probes.aim).square().mean())
                for lesson, its in self._encoded(start, self._train)
            ]
            self._scale = max(math.sqrt(mean(squares)), 1e-12)
            self._start = max(float(self.loss(start, self._train)), 1e-12)

    def _side(self, template: str) -> Side:
        return self.teacher.replaced(template.replace("{}", self.settings.text), self._trajectory)

    def _record(
        self, templates: Sequence[str], first_seed: int, seeds: int, states: int
    ) -> dict[str, tuple[Side, States]]:
        """States of so many trajectories, which the first of the templates share, at most `states` together."""
        sides = {template: self._side(template) for template in templates[:seeds]}
        parts = []
        for place, side in enumerate(sides.values()):
            check_matchable(side, "after the cross-attentions", self.notes)
            own = range(first_seed + place, first_seed + seeds, len(sides))
            parts.append(self.teacher.record(side, self._trajectory, own, self.settings.batch))
        joined = States.join(parts).spread(states)
        whose = (joined.seed - first_seed) % len(sides)
        shared = {each: (side, joined[whose == place]) for place, (each, side) in enumerate(sides.items())}
        return {each: pair for each, pair in shared.items() if len(pair[1])}

    @torch.no_grad()
    def _calibrate(self, start: Vectors, held_out: Mapping[str, tuple[Side, States]]) -> None:
        """Finds true errors on the states to select by: the start's, and that of nothing in the prompt's place."""
        batch, total = self.settings.batch, sum(len(states) for _, states in held_out.values())
        probes = {lesson.template: lesson.probes for lesson in self._select}
        found = foreseen = 0.0
        for template, (_, states) in held_out.items():
            share = len(states) / total
            student = self.teacher.student(start, template)
            found += share * error(student, states, batch)
            foreseen += share * float(probes[template].error(student.stages[0].parts[0][0]))
            if template == "{}":
                nothing = self.teacher.error_of_nothing(states, self._trajectory, batch)
            else:
                nothing = error(self.teacher.replaced(template.replace("{}", ""), self._trajectory), states, batch)
            self.held_out_empty += share * nothing
        self._calibration = found / max(foreseen, 1e-30)
        check_effect(self.held_out_empty, self.settings.text)

    def draw(self, generator: torch.Generator) -> list[Lesson]:
        """As many contexts as a batch holds."""
        order = torch.randperm(len(self._train), generator=generator).tolist()
        return [self._train[place] for place in order[: self.settings.batch]]

    def fixed(self, generator: torch.Generator, *, sparing: bool) -> list[list[Lesson]]:
        """As many lessons together as a batch may hold and divides them evenly; one at a time where `sparing`."""
        number, most = len(self._train), 1 if sparing else self.settings.batch
        size = max(size for size in range(1, most + 1) if number % size == 0)
        return [self._train[first : first + size] for first in range(0, number, size)]

    def loss(self, vectors: Vectors, drawn: Sequence[Lesson]) -> Tensor:
        losses = [_at_once(partial(self._loss_of, lesson), its) for lesson, its in self._encoded(vectors, drawn)]
        return torch.stack(losses).mean() / self._start

    def _loss_of(self, lesson: Lesson, its: Conditioning) -> Tensor:
        probes = lesson.probes
        return self.loss_function(probes.read(its)[None] / self._scale, probes.aim[None] / self._scale)

    def to_choose_by(self) -> Sequence[Lesson]:
        return self._select

    def error_in(self, vectors: Vectors, lessons: Sequence[Lesson]) -> float:
        """Foreseen by held-out rows in contexts that are not trained in, in units of the true error at the start."""
        errors = [float(lesson.probes.error(its)) for lesson, its in self._encoded(vectors, lessons)]
        return self._calibration * mean(errors)

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
