"""How often an estimate will run the U-Net, found out without running it.

The real code prepares and measures on a model whose U-Net is left out, and the passes that it asks for are counted. Of
the training one learning step and one check are asked for, and multiplied. A pass is that of one latent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor

from embedding_estimate.estimation.listener import NOBODY
from embedding_estimate.estimation.opening import Opening
from embedding_estimate.estimation.trainer import measured
from embedding_estimate.fidelity.protocol import IMAGE_SEEDS, TRAJECTORY
from embedding_estimate.model.forwarding import ForwardingModel
from embedding_estimate.model.host import Conditioning, Vectors
from embedding_estimate.model.meter import Meter, Passes
from embedding_estimate.model.vectors import VectorSpace, count, fit
from embedding_estimate.objectives.objective import Objective, Preparation
from embedding_estimate.optimizers import FULL, MOST_EVALUATIONS
from embedding_estimate.settings import FEW_WORDS, NOTHING
from embedding_estimate.teaching.recall import Recall
from embedding_estimate.teaching.teacher import Teacher
from embedding_estimate.training import bare_words, few_words, name_weight
from embedding_estimate.training.handlers import due
from embedding_estimate.training.preconditioning import SAMPLES

ROWS = 128  # of one state and one cross-attention: the Attention part records 25, or more for long prompts


@dataclass(frozen=True)
class Range:
    """The fewest passes and the most. They differ where it depends on how the training goes."""

    least: Passes = field(default_factory=Passes)
    most: Passes = field(default_factory=Passes)

    def __add__(self, more: Range) -> Range:
        return Range(self.least + more.least, self.most + more.most)

    def __mul__(self, times: int) -> Range:
        return Range(self.least * times, self.most * times)

    @classmethod
    def exactly(cls, passes: Passes) -> Range:
        return cls(passes, passes)

    @classmethod
    def up_to(cls, passes: Passes) -> Range:
        return cls(Passes(), passes)

    @classmethod
    def among(cls, choices: Sequence[Passes]) -> Range:
        """From the least to the most of them, of which none has more passes back and fewer through."""
        ordered = sorted(choices, key=lambda passes: (passes.forwards, passes.backwards))
        return cls(ordered[0], ordered[-1])


class WithoutUNet(ForwardingModel):
    """A borrowed model whose U-Net is not run: a prediction is made of the conditioning alone.

    Where gradients are kept every cross-attention is called with some rows, so that hooks on it see what they need.
    """

    def denoise(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        context = conditioning.context.float()  # (1 or B, L, C)
        made = (context * torch.linspace(0, 1, context.shape[2], device=context.device)).mean(dim=(1, 2))
        if conditioning.vector is not None:
            made = made + conditioning.vector.float().mean(dim=1)
        if torch.is_grad_enabled():
            for attention in self.cross_attentions():
                weight = cast(Tensor, attention.to_q.weight)  # (H * d, channels)
                queries = attention.to_q(weight.new_zeros(len(x), ROWS, weight.shape[1]))
                made = made + attention.to_out(queries).float().mean(dim=(1, 2))
        return made.view(-1, 1, 1, 1).expand_as(x)


class Rehearsal:
    """Asks for the passes of an estimate that has begun on `meter`, which must be one over `WithoutUNet`."""

    def __init__(self, begun: Opening, meter: Meter, contexts: Sequence[str]):
        self.begun = begun
        self.meter = meter
        self.contexts = contexts  # the user's own to measure in
        space = VectorSpace.of(meter)
        self.start = begun.start
        self.elsewhere = space.random(count(begun.start), seed=0)  # like no prompt's, as trained vectors are
        self.lasting = Range()  # what all previews of the phases so far have in common

    def asked(self, call: Callable[[], Any]) -> Passes:
        """The passes that a call asks for."""
        before = self._count
        call()
        return self._count - before

    @property
    def _count(self) -> Passes:
        return self.meter.passes.total

    def prepared(self, preparation: Preparation) -> tuple[Objective[Any], Range]:
        """The objective of a phase, and the passes that it takes to prepare."""
        before = self._count
        objective = preparation.prepare(self.start)
        return objective, Range.exactly(self._count - before)

    def measurings(self) -> list[Passes]:
        """Those of the figures and images, for each result that may be; none where nothing is measured."""
        settings, teacher = self.begun.settings, self.begun.teacher
        if settings.measure_used == NOTHING:
            return []
        if self.begun.exact is not None:
            choices = [(teacher, self.begun.exact)]
        else:
            choices = list(product(self._typed(teacher), self._trained()))
        return [self._measuring(typed, vectors) for typed, vectors in choices]

    def _measuring(self, teacher: Teacher, vectors: Vectors) -> Passes:
        settings, anew = self.begun.settings, Teacher(teacher.model, teacher.task, recall=Recall())
        return self.asked(lambda: measured(settings, anew, vectors, NOBODY, self.contexts))

    def _typed(self, teacher: Teacher) -> list[Teacher]:
        """The ways of typing the result that differ in work."""
        if self.begun.settings.words == FEW_WORDS and self.begun.plans:
            return [teacher.in_words(self.begun.plans[place]) for place in (0, -1)]
        if self.begun.settings.typed_weight == 0:
            return [teacher.typed(weight) for weight in (1.0, 1.1)]
        return [teacher]

    def _trained(self) -> list[Vectors]:
        """Vectors that the result may be: what is predicted with some of them is known already."""
        if not self.begun.settings.initial_prompt.strip():  # then the start is the bare words
            return [self.elsewhere, self.start]
        plain = self.meter.token_vectors(self.begun.settings.text)
        return [self.elsewhere, self.start, fit(plain, count(self.start), self.meter.padding_vectors())]

    def training(self, objective: Objective[Any], first_step: int, *, last: bool, weight_found: bool) -> Range:
        """Those of one phase from a step on, once its objective is prepared; `weight_found` in a phase before."""
        phase = objective.phase
        check = Range.exactly(self._check(objective))
        judged_anew = check if first_step else Range()  # what was reached before
        if phase.finds_weight:
            return judged_anew + self._weight(objective, first_step)
        if phase.finds_words:
            trained = judged_anew + self._words(objective)
        else:
            trained = judged_anew + self._steps(objective, first_step, phase.steps)
        return trained + self._bare_words(objective, open_=phase.finds_words or weight_found) if last else trained

    def _check(self, objective: Objective[Any]) -> Passes:
        return self.asked(lambda: objective.held_out(self.start))

    def _steps(
        self, objective: Objective[Any], first_step: int, steps: int, *, saves: bool = True, previews: bool = True
    ) -> Range:
        """One run of the phase's optimizer, and what happens beside its steps."""
        phase, settings = objective.phase, self.begun.settings
        full, last_step = phase.optimizer in FULL, first_step + steps
        draws = objective.of_a_step(torch.Generator().manual_seed(phase.seed), sparing=phase.checkpointing)
        leaves = {key: value.clone().requires_grad_() for key, value in self.start.items()}
        draw = self.asked(lambda: objective.loss(leaves, draws[0]))
        check = self._check(objective)

        numbers = range(first_step + 1, last_step + 1)
        regular = [number for number in numbers if number == last_step or number % objective.check_every == 0]
        judged = {*regular, *(number for number in numbers if saves and due(number, settings.save_every))}
        earliest = regular[phase.early_stop - 1] if 0 < phase.early_stop <= len(regular) else last_step
        shown = [number for number in numbers if previews and due(number, settings.preview_every)]
        surely_shown = [number for number in shown if number < earliest or earliest == last_step]
        preview = self._preview(objective.teacher) if shown else Passes()
        if shown and not self.lasting.most.forwards:
            self.lasting = Range.up_to(self._lasting(objective.teacher))
        if surely_shown and not phase.finds_words:
            self.lasting = Range.exactly(self.lasting.most)

        checks = sum(number <= earliest for number in judged)
        least = draw * (SAMPLES + earliest - first_step) + check * checks + preview * len(surely_shown)
        most = draw * (SAMPLES + steps) + check * len(judged) + preview * len(shown)
        if full:  # each step is a line search, and Adam may go on
            most += draw * (SAMPLES + steps * (len(draws) * MOST_EVALUATIONS - 1)) + check
        return Range(least, most)

    def _preview(self, teacher: Teacher) -> Passes:
        return self.asked(lambda: teacher.run(teacher.student(self.elsewhere), TRAJECTORY, IMAGE_SEEDS[:1], 1))

    def _lasting(self, teacher: Teacher) -> Passes:
        sides = [teacher.replaced(text, TRAJECTORY) for text in (teacher.task.text, "")]
        return self.asked(lambda: [teacher.run(side, TRAJECTORY, IMAGE_SEEDS[:1], 1) for side in sides])

    def _weight(self, objective: Objective[Any], first_step: int) -> Range:
        """Those of `name_weight.solve`."""
        teacher, batch = objective.teacher, objective.phase.batch
        before = self._count
        contexts = name_weight.contexts_of(teacher, batch)
        prepared = self._count - before
        inside = self.asked(lambda: [context.error(teacher, self.start, batch) for context in contexts])
        check, trials = Range.exactly(self._check(objective)), len(name_weight.GRID) + 1
        steps = name_weight.TRIAL_STEPS
        trial = check + self._steps(objective, first_step, steps, saves=False, previews=False)
        to_the_end = check + self._steps(objective, first_step + steps, objective.phase.steps, saves=False)
        more = trial * 2 + to_the_end * name_weight.FINALISTS
        harm = inside * (trials + 2 + name_weight.FINALISTS + 1)
        return Range.exactly(prepared) + trial * trials + to_the_end + Range.up_to(more.most + harm)

    def _words(self, objective: Objective[Any]) -> Range:
        """Those of `few_words.solve`."""
        check, steps = self._check(objective), objective.phase.steps
        fewer = len(self.begun.plans) - 1
        part = few_words.steps_of_a_try(steps)
        tried = self._steps(objective, 0, part, saves=False, previews=False).most + check * 2
        return Range(check * 2, check * 3 + tried * fewer + self._steps(objective, 0, steps).most)

    def _bare_words(self, objective: Objective[Any], *, open_: bool) -> Range:
        """Those of `bare_words.keep_where_better`; with `open_` it is not known yet whether they may be kept."""
        if not open_ and not bare_words.may_be_kept(objective.teacher, count(self.start)):
            return Range()
        among_words = self.asked(lambda: objective.held_out_among_words(self.start)) * 2
        kept = self._check(objective) if among_words.forwards else Passes()
        return Range(Passes() if open_ else among_words, among_words + kept)
