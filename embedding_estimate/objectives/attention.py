"""The Attention part: what every cross-attention of the U-Net reads, on queries recorded once from the teacher.

    loss = mean over contexts T of the sum over rows r of (g_r' m_r(T[vectors]) - g_r' m_r(T[prompt]))^2

m_r is what row r of a cross-attention gathers, g_r how much the prediction moves with it; see `probes`. The U-Net sees
text nowhere else, so vectors that are read as the prompt is have its effect. The U-Net runs while preparing only: a
step costs one pass through the text encoder and a few small attention products for each context.

Rows are shared among the contexts. Their states come from trajectories in a few of these, and what a prompt reads there
is found without the U-Net in all of them. So many contexts cost no more of it than one, and the first steps, which are
taken in a few of them, cost less of the text encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from embedding_estimate.model.host import BorrowedModel, Conditioning, Vectors
from embedding_estimate.objectives.objective import Objective, mean, starting_from
from embedding_estimate.objectives.prompts import check_effect, check_matchable, contexts_of
from embedding_estimate.optimizers import FULL, make_loss
from embedding_estimate.teaching import batches
from embedding_estimate.teaching.plan import Phase
from embedding_estimate.teaching.probes import Probes
from embedding_estimate.teaching.probing import Prober
from embedding_estimate.teaching.sides import Side, States, error
from embedding_estimate.teaching.teacher import SELECT_SEED, Teacher

PORTIONS = 4  # that the rows are dealt out in: where there are several contexts each reads one of them
FEW_CONTEXTS = 16  # about as many of them are trained in first, by an optimizer that goes through all in each step
IN_FEW = 2 / 3  # of the steps
TOO_FEW = 1 / 2  # of the rows that are wanted: on the demo model, half of them halved what 37 vectors keep
CHECK_EVERY = 10  # a check is a forward pass of the encoder and of fewer rows, a third of a step


@dataclass(frozen=True)
class Extent:
    """How much is recorded."""

    rows: int  # of each layer, to train on, or more for
    readings: int  # of each number that is trained: with fewer, what is learned is these rows
    train_states: int  # that they are spread over, from
    train_seeds: int  # trajectories, in as many of the contexts
    select_rows: int
    select_states: int
    select_seeds: int

    def scaled(self, share: float) -> Extent:
        """So many times as much of all."""
        whole = {name: max(1, round(share * number)) for name, number in vars(self).items()}
        return Extent(**whole)


WHOLE = Extent(rows=800, readings=8, train_states=32, train_seeds=6, select_rows=150, select_states=16, select_seeds=4)
SKETCHED = Extent(rows=200, readings=1, train_states=6, train_seeds=1, select_rows=100, select_states=4, select_seeds=1)
"""One short trajectory: soon something to keep, and a better place for the rest to start from."""


@dataclass(frozen=True)
class ContextProbes:
    """What is read in one context."""

    template: str
    probes: Probes


class AttentionPreparation:
    """Records trajectories, and probes the cross-attentions on their states."""

    check_every = CHECK_EVERY

    def __init__(self, phase: Phase, teacher: Teacher, extent: Extent | None = None):
        """`extent` is the whole one, or so much of it as the phase says, unless it is given."""
        self.phase = phase
        self.teacher = teacher
        self.extent = extent = extent or WHOLE.scaled(phase.share)
        self._contexts = contexts_of(phase, teacher)
        others = len(teacher.task.other_prompts)  # each of which is to be seen, if this allows
        self._select_seeds = max(extent.select_seeds, min(others, extent.train_seeds))
        evaluations = teacher.model.evaluations(phase.trajectory.sampler, phase.trajectory.steps)
        recorded = evaluations * (extent.train_seeds + self._select_seeds)
        self.states_to_record = recorded + extent.train_states + extent.select_states  # and to probe
        self._notes: list[str] = []

    def prepare(self, start: Vectors) -> AttentionObjective:
        phase, model, contexts, extent = self.phase, self.teacher.model, self._contexts, self.extent
        rows = self._rows(start)
        wanted = _megabytes(model, rows + extent.select_rows)
        share = min(1.0, phase.attention_memory / wanted)
        if share < TOO_FEW:
            self._notes.append(
                f"attention_memory={phase.attention_memory} holds {share:.0%} of the rows that so many vectors ask "
                f"for: with {math.ceil(wanted)} they keep more of the weights' effect"
            )
        prober = Prober(
            model,
            rows=share,
            batch=phase.batch,
            seed=phase.seed,
            checkpointed=phase.checkpointing,
            on_pass=self.teacher.on_record,
            recall=self.teacher.recall,
        )
        trained = self._record(contexts.train, phase.seed, extent.train_seeds)
        seen = _in_contexts(trained, lambda states: states.between(extent.train_states))
        chosen = self._record(contexts.select, SELECT_SEED, self._select_seeds)
        held_out = _in_contexts(chosen, lambda states: states.spread(extent.select_states))
        number = len(contexts.train)
        portions = prober(list(seen.values()), rows).dealt(min(PORTIONS, number))
        train = tuple(
            ContextProbes(template, portions[place * len(portions) // number].aimed(self._side(template)))
            for place, template in enumerate(contexts.train)
        )
        probes = prober(list(held_out.values()), extent.select_rows)
        select = tuple(ContextProbes(template, probes.aimed(self._side(template))) for template in contexts.select)
        calibration, empty = self._calibrated(start, held_out, select)
        objective = AttentionObjective(
            teacher=self.teacher,
            phase=phase,
            loss_function=make_loss(phase.loss),
            check_every=self.check_every,
            notes=(*dict.fromkeys(self._notes), *prober.notes),
            held_out_empty=empty,
            held_out_start=empty,
            train=train,
            select=select,
            calibration=calibration,
        )
        objective = starting_from(objective, start).scaled_at(start)
        learned = {key: value.detach().clone().requires_grad_() for key, value in start.items()}
        together = batches.contexts(model, phase.batch, partial(objective.loss, learned, train[:1]))
        return replace(objective, together=together)

    def _rows(self, start: Vectors) -> int:
        """Of each layer, to train on where there is memory for all."""
        numbers = sum(value.numel() for value in start.values())
        layers = len(self.teacher.model.cross_attentions())
        return max(self.extent.rows, math.ceil(self.extent.readings * numbers / layers))

    def megabytes(self, start: Vectors) -> float:
        """What the rows take."""
        wanted = _megabytes(self.teacher.model, self._rows(start) + self.extent.select_rows)
        return min(wanted, self.phase.attention_memory)

    def _side(self, template: str) -> Side:
        return self.teacher.replaced(template.replace("{}", self.teacher.task.text), self.phase.trajectory)

    def _record(self, templates: Sequence[str], first_seed: int, seeds: int) -> dict[str, tuple[Side, States]]:
        """Each template's part of so many trajectories, which the first of the templates share."""
        sides = {template: self._side(template) for template in templates[:seeds]}
        recorded = {}
        for place, (template, side) in enumerate(sides.items()):
            self._notes += check_matchable(side, "after the cross-attentions")
            own = range(first_seed + place, first_seed + seeds, len(sides))
            recorded[template] = side, self.teacher.record(side, self.phase.trajectory, own, self.phase.batch)
        return recorded

    @torch.no_grad()
    def _calibrated(
        self, start: Vectors, held_out: Mapping[str, tuple[Side, States]], select: Sequence[ContextProbes]
    ) -> tuple[float, float]:
        """On the states to select by: the true error of the start over the one that the rows foresee, and the true
        error of nothing in the prompt's place."""
        batch, total = self.phase.batch, sum(len(states) for _, states in held_out.values())
        probes = {example.template: example.probes for example in select}
        true = foreseen = empty = 0.0
        for template, (_, states) in held_out.items():
            share = len(states) / total
            student = self.teacher.student(start, template)
            true += share * error(student, states, batch)
            foreseen += share * float(probes[template].error(student.stages[0].parts[0][0]))
            if template == "{}":
                nothing = self.teacher.error_of_nothing(states, self.phase.trajectory, batch)
            else:
                nothing = error(self.teacher.replaced(template.replace("{}", ""), self.phase.trajectory), states, batch)
            empty += share * nothing
        check_effect(empty, self.teacher.task.text)
        return true / max(foreseen, 1e-30), empty


@dataclass(frozen=True)
class AttentionObjective(Objective[ContextProbes]):
    """What is read in each context, on rows that are shared among them."""

    train: tuple[ContextProbes, ...]
    select: tuple[ContextProbes, ...]
    calibration: float  # true error of the start over the error that the rows foresee for it
    together: int = 1  # contexts that are read and passed back at once
    scale: float = 1.0  # root mean squared difference of readings at the start
    start: float = 1.0  # loss at the start, in those units

    @torch.no_grad()
    def scaled_at(self, start: Vectors) -> AttentionObjective:
        """The same with a loss of 1 there."""
        squares = [
            float((example.probes.read(its) - example.probes.aim).square().mean())
            for example, its in self._encoded(start, self.train)
        ]
        scaled = replace(self, scale=max(math.sqrt(mean(squares)), 1e-12))
        return replace(scaled, start=max(float(scaled.loss(start, self.train)), 1e-12))

    def trained_in(self) -> Sequence[ContextProbes]:
        return self.train

    def draw(self, generator: torch.Generator) -> list[ContextProbes]:
        """As many contexts as a batch holds."""
        order = torch.randperm(len(self.train), generator=generator).tolist()
        return [self.train[place] for place in order[: self.phase.drawn]]

    def fixed(self, generator: torch.Generator, *, sparing: bool) -> list[Sequence[ContextProbes]]:
        """As many examples together as fit and divide them evenly; one at a time where `sparing`."""
        number, most = len(self.train), 1 if sparing else self.together
        size = max(size for size in range(1, most + 1) if number % size == 0)
        return [self.train[first : first + size] for first in range(0, number, size)]

    def stages(self) -> Sequence[tuple[Objective[ContextProbes], int]]:
        """A few contexts lead most of the way, at a fraction of the cost; all of them make it hold in others."""
        every, steps = len(self.train) // FEW_CONTEXTS, self.phase.steps
        if every < 2 or self.phase.optimizer not in FULL:
            return super().stages()
        first = round(IN_FEW * steps)
        return [(replace(self, train=self.train[::every]), first), (self, steps - first)]

    def loss(self, vectors: Vectors, drawn: Sequence[ContextProbes]) -> Tensor:
        losses = [
            len(examples) * _at_once(partial(self._loss_of, examples), its)
            for examples, its in _readable_together(self._encoded(vectors, drawn))
        ]
        return torch.stack(losses).sum() / (len(drawn) * self.start)

    def _loss_of(self, examples: Sequence[ContextProbes], its: Conditioning) -> Tensor:
        """The mean over contexts that the same rows read."""
        aims = torch.stack([example.probes.aim for example in examples])  # (B, all R, and S)
        return self.loss_function(examples[0].probes.read(its) / self.scale, aims / self.scale)

    def to_choose_by(self) -> Sequence[ContextProbes]:
        return self.select

    def error_in(self, vectors: Vectors, examples: Sequence[ContextProbes]) -> float:
        """Foreseen by held-out rows in contexts that are not trained in, in units of the true error at the start."""
        errors = [float(example.probes.error(its)) for example, its in self._encoded(vectors, examples)]
        return self.calibration * mean(errors)

    def _encoded(self, vectors: Vectors, examples: Sequence[ContextProbes]) -> list[tuple[ContextProbes, Conditioning]]:
        """Each example with the vectors in its template."""
        encoded = self.teacher.encode_each(vectors, [example.template for example in examples])
        return list(zip(examples, encoded, strict=True))


def _in_contexts(
    recorded: Mapping[str, tuple[Side, States]], choose: Callable[[States], States]
) -> dict[str, tuple[Side, States]]:
    """Some of the states of all contexts, by context; those without any are left out."""
    chosen = choose(States.join([states for _, states in recorded.values()]))
    shared = {name: (side, chosen[torch.isin(chosen.seed, states.seed)]) for name, (side, states) in recorded.items()}
    return {name: pair for name, pair in shared.items() if len(pair[1])}


def _readable_together(
    encoded: Sequence[tuple[ContextProbes, Conditioning]],
) -> Iterator[tuple[list[ContextProbes], Conditioning]]:
    """Contexts of one length that the same rows read, with their conditionings joined."""
    groups: dict[tuple[int, int], list[tuple[ContextProbes, Conditioning]]] = {}
    for example, its in encoded:
        groups.setdefault((id(example.probes.layers), its.context.shape[1]), []).append((example, its))
    for group in groups.values():
        vectors = [its.vector for _, its in group if its.vector is not None]
        joined = Conditioning(torch.cat([its.context for _, its in group]), torch.cat(vectors) if vectors else None)
        yield [example for example, _ in group], joined


def _at_once(loss: Callable[[Conditioning], Tensor], conditioning: Conditioning) -> Tensor:
    """The loss of a conditioning, differentiable in it, of whose own graph only the gradient is kept.

    So of several templates, whose passes through the text encoder are held together, those of the same rows are read at
    a time.
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
