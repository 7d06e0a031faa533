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
from embedding_estimate.objectives.objective import Objective, mean, starting_from
from embedding_estimate.objectives.prompts import SCHEDULED, check_effect, seeds_of, templates_of
from embedding_estimate.optimizers import make_loss
from embedding_estimate.teaching.plan import Phase
from embedding_estimate.teaching.sides import Side, States, epsilon, error
from embedding_estimate.teaching.teacher import SELECT_SEED, Teacher

TRAIN_SEEDS = 6  # trajectories, shared among the templates; at least one for each other prompt
SELECT_SEEDS = 3  # trajectories to choose on, of the cheapest sampler
SELECT_SAMPLER = "Euler"
SELECT_LIMIT = 4  # of them, where there are several other prompts
SELECT_STATES = 24
FIXED_DRAWS = 8


@dataclass(frozen=True)
class ContextStates:
    """What is known of one template."""

    template: str
    train: States  # in order of their evaluation
    select: States


class UNetPreparation:
    """Records the trajectories of each context."""

    def __init__(self, phase: Phase, teacher: Teacher):
        self.phase = phase
        self.teacher = teacher
        self._templates = templates_of(phase, teacher)
        number = len(self._templates)
        self._select_trajectory = replace(phase.trajectory, sampler=SELECT_SAMPLER)
        others = len(teacher.task.other_prompts)
        self._train_seeds = max(round(phase.share * TRAIN_SEEDS) // number, others)  # of each template
        self._select_seeds = max(SELECT_SEEDS // number, 1, min(others, SELECT_LIMIT))
        self._kept = max(1, SELECT_STATES // number)  # of each template's states to choose on
        self.states_to_record = number * sum(
            seeds * teacher.model.evaluations(trajectory.sampler, trajectory.steps)
            for seeds, trajectory in (
                (self._train_seeds, phase.trajectory),
                (self._select_seeds, self._select_trajectory),
            )
        )
        # a held-out state costs a forward pass, a drawn one a forward and a backward, which is about two more
        self.check_every = math.ceil(self._select_states() / (0.05 * 3 * phase.drawn))
        self._notes: list[str] = []

    def prepare(self, start: Vectors) -> UNetObjective:
        phase, batch = self.phase, self.phase.batch
        examples = tuple(self._example(number, template) for number, template in enumerate(self._templates))
        trajectory = self._select_trajectory
        empty = mean([self.teacher.error_of_nothing(example.select, trajectory, batch) for example in examples])
        check_effect(empty, self.teacher.task.text)
        objective = UNetObjective(
            teacher=self.teacher,
            phase=phase,
            loss_function=make_loss(phase.loss),
            check_every=self.check_every,
            notes=tuple(dict.fromkeys(self._notes)),
            held_out_empty=empty,
            held_out_start=empty,
            examples=examples,
        )
        return starting_from(objective, start).scaled_at(start)

    def _select_states(self) -> int:
        """How many there are to choose on, of all templates."""
        number = len(self._templates)
        recorded = self._select_seeds * self.teacher.model.evaluations(SELECT_SAMPLER, self._select_trajectory.steps)
        return number * min(self._kept, recorded)

    def _example(self, number: int, template: str) -> ContextStates:
        text, batch = template.replace("{}", self.teacher.task.text), self.phase.batch
        side = self.teacher.replaced(text, self.phase.trajectory)
        self._explain(side)
        seeds = seeds_of(self.phase.seed, self._train_seeds, number)
        train = self.teacher.record(side, self.phase.trajectory, seeds, batch)
        side = self.teacher.replaced(text, self._select_trajectory)
        seeds = seeds_of(SELECT_SEED, self._select_seeds, number)
        select = self.teacher.record(side, self._select_trajectory, seeds, batch)
        return ContextStates(
            template,
            train[train.evaluation.argsort(stable=True)],
            select.spread(self._kept),
        )

    def _explain(self, side: Side) -> None:
        if side.scheduled:
            self._notes.append(SCHEDULED)
        if not side.weights_sum_to_one:
            self._notes.append(
                "the weights of AND, or the one at the prompt's end, do not sum to 1: "
                "the result is right beside this other side's text only"
            )


@dataclass(frozen=True)
class UNetObjective(Objective[ContextStates]):
    """Predictions of the U-Net on the states of each context."""

    examples: tuple[ContextStates, ...]
    scale: float = 1.0  # root mean squared difference at the start, epsilon units
    start: float = 1.0  # loss at the start, in those units

    @torch.no_grad()
    def scaled_at(self, start: Vectors) -> UNetObjective:
        """The same with a loss of 1 there, `held_out_start` being its held-out error."""
        scaled = replace(self, scale=max(math.sqrt(self.held_out_start), 1e-6))
        if self.phase.loss == "MSE":  # whose value is 1 now
            return scaled
        losses = [float(scaled.loss(start, (example, example.select))) for example in self.examples]
        return replace(scaled, start=max(mean(losses), 1e-12))

    def trained_in(self) -> Sequence[ContextStates]:
        return self.examples

    def draw(self, generator: torch.Generator) -> tuple[ContextStates, States]:
        """One template, and states spread evenly over the sampling, each drawn within its stretch."""
        example = self.examples[int(torch.randint(len(self.examples), (), generator=generator))]
        size = self.phase.drawn
        place = (torch.arange(size) + torch.rand(size, generator=generator)) / size  # (B,) in [0, 1)
        return example, example.train.at((place * len(example.train)).long().tolist())

    def fixed(self, generator: torch.Generator, *, sparing: bool) -> list[tuple[ContextStates, States]]:
        return [self.draw(generator) for _ in range(FIXED_DRAWS)]

    def loss(self, vectors: Vectors, drawn: tuple[ContextStates, States]) -> Tensor:
        example, states = drawn
        denoised = self.teacher.model.denoise(
            states.x, states.sigma, self.teacher.encode_vectors(vectors, example.template)
        )
        prediction = epsilon(states.x, states.sigma, denoised) / self.scale  # (B, C, h, w)
        target = epsilon(states.x, states.sigma, states.target) / self.scale
        return self.loss_function(prediction, target) / self.start

    def to_choose_by(self) -> Sequence[ContextStates]:
        return self.examples

    def error_in(self, vectors: Vectors, examples: Sequence[ContextStates]) -> float:
        batch = self.phase.batch
        return mean(
            [error(self.teacher.student(vectors, example.template), example.select, batch) for example in examples]
        )
