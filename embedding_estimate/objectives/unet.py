"""The U-Net part: the prediction of the side being replaced, on states of the teacher's own trajectories.

    loss = mean over the drawn states of |eps(x; vectors) - eps(x; prompt)|^2,   eps(x) = (x - D(x)) / sigma

Matching one side on recorded states costs one forward and one backward pass per state; the teacher's predictions,
schedules and `AND` included, are there before the loop starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embedding_estimate.model.host import Vectors
from embedding_estimate.objectives import SCHEDULED, ChosenByLessons, Loss, check_effect, mean, seeds_of, templates_of
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.sides import Side, States, epsilon, error
from embedding_estimate.teaching.teacher import SELECT_SEED, Teacher, Trajectory

TRAIN_SEEDS = 6  # trajectories, shared among the templates; at least one for each other prompt
SELECT_SEEDS = 3  # trajectories to choose on, of the cheapest sampler
SELECT_SAMPLER = "Euler"
SELECT_LIMIT = 4  # of them, where there are several other prompts
SELECT_STATES = 24
FIXED_DRAWS = 8


@dataclass(frozen=True)
class Lesson:
    """What is known of one template."""

    template: str
    train: States  # in order of their evaluation
    select: States


class UNetObjective(ChosenByLessons[Lesson]):
    def __init__(self, settings: Settings, teacher: Teacher, loss: Loss):
        self.settings = settings
        self.teacher = teacher
        self.loss_function = loss
        self._templates = templates_of(settings, teacher)
        share = len(self._templates)
        self._train = Trajectory.of(settings)
        others = len(teacher.task.other_prompts)
        self._train_seeds = max(TRAIN_SEEDS // share, others)  # of each template
        self._select_seeds = max(SELECT_SEEDS // share, 1, min(others, SELECT_LIMIT))
        self._kept = max(1, SELECT_STATES // share)  # of each template's states to choose on
        self._select = replace(self._train, sampler=SELECT_SAMPLER)
        self.states_to_record = share * sum(
            seeds * teacher.model.evaluations(trajectory.sampler, trajectory.steps)
            for seeds, trajectory in ((self._train_seeds, self._train), (self._select_seeds, self._select))
        )
        self.notes: list[str] = []
        self.held_out_empty = 0.0
        self.held_out_start = 0.0
        # a held-out state costs a forward pass, a drawn one a forward and a backward, which is about two more
        self.check_every = math.ceil(self._select_states() / (0.05 * 3 * settings.batch))
        self._lessons: list[Lesson] = []
        self._scale = 1.0  # root mean squared difference at the start, epsilon units
        self._start = 1.0  # loss at the start, in those units

    def prepare(self, start: Vectors) -> None:
        for template in self._templates:
            self._lessons.append(self._lesson(template))
        batch, selects = self.settings.batch, [lesson.select for lesson in self._lessons]
        self.held_out_empty = mean([self.teacher.error_of_nothing(each, self._select, batch) for each in selects])
        check_effect(self.held_out_empty, self.settings.text)
        self.held_out_start = self.held_out(start)
        self._scale = max(math.sqrt(self.held_out_start), 1e-6)
        if self.settings.loss != "MSE":  # whose value is 1 now
            with torch.no_grad():
                losses = [float(self.loss(start, (lesson, lesson.select))) for lesson in self._lessons]
            self._start = max(mean(losses), 1e-12)

    def _select_states(self) -> int:
        """How many there are to choose on, of all templates."""
        share = len(self._templates)
        recorded = self._select_seeds * self.teacher.model.evaluations(SELECT_SAMPLER, self._select.steps)
        return share * min(self._kept, recorded)

    def _lesson(self, template: str) -> Lesson:
        text = template.replace("{}", self.settings.text)
        side = self.teacher.replaced(text, self._train)
        self._explain(side)
        number = len(self._lessons)
        seeds = seeds_of(self.settings.seed, self._train_seeds, number)
        train = self.teacher.record(side, self._train, seeds, self.settings.batch)
        side = self.teacher.replaced(text, self._select)
        seeds = seeds_of(SELECT_SEED, self._select_seeds, number)
        select = self.teacher.record(side, self._select, seeds, self.settings.batch)
        return Lesson(
            template,
            train[train.evaluation.argsort(stable=True)],
            select.spread(self._kept),
        )

    def _explain(self, side: Side) -> None:
        found = []
        if side.scheduled:
            found.append(SCHEDULED)
        if not side.weights_sum_to_one:
            found.append(
                "the weights of AND, or the one at the prompt's end, do not sum to 1: "
                "the result is right beside this other side's text only"
            )
        self.notes += [note for note in found if note not in self.notes]

    def draw(self, generator: torch.Generator) -> tuple[Lesson, States]:
        """One template, and states spread evenly over the sampling, each drawn within its stretch."""
        lesson = self._lessons[int(torch.randint(len(self._lessons), (), generator=generator))]
        size = self.settings.batch
        place = (torch.arange(size) + torch.rand(size, generator=generator)) / size  # (B,) in [0, 1)
        return lesson, lesson.train.at((place * len(lesson.train)).long().tolist())

    def fixed(self, generator: torch.Generator, *, sparing: bool) -> list[tuple[Lesson, States]]:
        return [self.draw(generator) for _ in range(FIXED_DRAWS)]

    def loss(self, vectors: Vectors, drawn: tuple[Lesson, States]) -> Tensor:
        lesson, states = drawn
        denoised = self.teacher.model.denoise(
            states.x, states.sigma, self.teacher.encode_vectors(vectors, lesson.template)
        )
        prediction = epsilon(states.x, states.sigma, denoised) / self._scale  # (B, C, h, w)
        target = epsilon(states.x, states.sigma, states.target) / self._scale
        return self.loss_function(prediction, target) / self._start

    def to_choose_by(self) -> Sequence[Lesson]:
        return self._lessons

    def error_in(self, vectors: Vectors, lessons: Sequence[Lesson]) -> float:
        batch = self.settings.batch
        return mean([error(self.teacher.student(vectors, each.template), each.select, batch) for each in lessons])
