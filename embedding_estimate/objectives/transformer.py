"""The Transformer part: the text encoder's hidden states after emphasis, over the whole chunk.

    loss = |context(vectors) - context(prompt)|^2, with SDXL's pooled vector compared beside it

Quick, since the U-Net is not asked, and for that reason blind to what matters to it. In SD1 and SD2 the encoder ends
in a LayerNorm, whose output no input vector can scale: weights are out of this part's reach there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embedding_estimate.errors import PromptError, quoted
from embedding_estimate.model.host import Conditioning, Vectors
from embedding_estimate.objectives.objective import Objective, mean, starting_from
from embedding_estimate.objectives.prompts import check_matchable, templates_of
from embedding_estimate.optimizers import make_loss
from embedding_estimate.teaching.plan import Phase
from embedding_estimate.teaching.sides import Side
from embedding_estimate.teaching.teacher import Teacher


@dataclass(frozen=True)
class ContextTarget:
    """What is known of one template."""

    template: str
    target: Sequence[Tensor]  # context (1, L, C), and SDXL's vector (1, V)
    empty: Sequence[Tensor]  # the same of the template around nothing
    scale: Sequence[float]  # root mean squared difference at the start, of each


class ChunksError(PromptError):
    """Prompt and embedding fill different numbers of chunks."""


class TransformerPreparation:
    """Encodes the prompt in each context."""

    states_to_record = 0
    check_every = 10  # a check is one forward pass of the encoder, a third of a step

    def __init__(self, phase: Phase, teacher: Teacher):
        self.phase = phase
        self.teacher = teacher
        self._notes: list[str] = []

    @torch.no_grad()
    def prepare(self, start: Vectors) -> TransformerObjective:
        first, *others = templates_of(self.phase, self.teacher)
        examples = [self._example(first, start)]
        for template in others:
            try:
                examples.append(self._example(template, start))
            except ChunksError as error:
                self._notes.append(f"template {quoted(template)} was left out: {error}")
        empty = mean([_difference(example.empty, example.target) for example in examples])
        objective = TransformerObjective(
            teacher=self.teacher,
            phase=self.phase,
            loss_function=make_loss(self.phase.loss),
            check_every=self.check_every,
            notes=tuple(dict.fromkeys(self._notes)),
            held_out_empty=empty,
            held_out_start=empty,
            examples=tuple(examples),
        )
        at_start = mean([float(objective.loss(start, example)) for example in examples])
        return starting_from(replace(objective, start=max(at_start, 1e-12)), start)

    def _example(self, template: str, start: Vectors) -> ContextTarget:
        trajectory = self.phase.trajectory
        evaluations = self.teacher.model.evaluations(trajectory.sampler, trajectory.steps)
        side, nothing = (
            self.teacher.replaced(template.replace("{}", text), trajectory) for text in (self.teacher.task.text, "")
        )
        self._notes += check_matchable(side, "which the text encoder does not see")
        mine = _encoded(self.teacher, start, template, [conditioning.context for conditioning in _conditionings(side)])
        target = _average(side, evaluations)
        context, *vector = _average(nothing, evaluations)  # (1, l, C), l <= L
        rows = torch.arange(target[0].shape[1], device=context.device) % context.shape[1]  # chunks that it lacks: again
        scale = [max(float((a - b).square().mean().sqrt()), 1e-6) for a, b in zip(mine, target, strict=True)]
        return ContextTarget(template, target, [context[:, rows], *vector], scale)


@dataclass(frozen=True)
class TransformerObjective(Objective[ContextTarget]):
    """Hidden states of the text encoder in each context."""

    examples: tuple[ContextTarget, ...]
    start: float = 1.0  # loss at the start, with the differences scaled

    def trained_in(self) -> Sequence[ContextTarget]:
        return self.examples

    def draw(self, generator: torch.Generator) -> ContextTarget:
        return self.examples[int(torch.randint(len(self.examples), (), generator=generator))]

    def fixed(self, generator: torch.Generator, *, sparing: bool) -> list[ContextTarget]:
        return list(self.examples)

    def loss(self, vectors: Vectors, drawn: ContextTarget) -> Tensor:
        terms = [
            self.loss_function(a / scale, b / scale)
            for a, b, scale in zip(self._beside(vectors, drawn), drawn.target, drawn.scale, strict=True)
        ]
        return torch.stack(terms).mean() / self.start

    def to_choose_by(self) -> Sequence[ContextTarget]:
        """All that is trained on: nothing is random here, so nothing can be held out."""
        return self.examples

    def error_in(self, vectors: Vectors, examples: Sequence[ContextTarget]) -> float:
        return mean([_difference(self._beside(vectors, example), example.target) for example in examples])

    def _beside(self, vectors: Vectors, example: ContextTarget) -> list[Tensor]:
        """The vectors' own, which with another number of them than was prepared for may not fit."""
        return _encoded(self.teacher, vectors, example.template, example.target[:1])


def _encoded(teacher: Teacher, vectors: Vectors, template: str, beside: Sequence[Tensor]) -> list[Tensor]:
    """Raises `ChunksError` unless they fill as many chunks as the contexts (1, L, C) that they stand beside."""
    mine = teacher.encode_vectors(vectors, template)
    marked = teacher.model.info.chunk_tokens + 2  # with the begin and end marks
    chunks, *others = (context.shape[1] // marked for context in (mine.context, *beside))
    if {chunks} != set(others):
        raise ChunksError(
            f"the prompt fills {max(others)} chunks of {marked - 2} tokens and the embedding {chunks}: "
            "the Transformer part needs the same number; choose the U-Net part, or change the tokens"
        )
    return _parts(mine)


def _parts(conditioning: Conditioning) -> list[Tensor]:
    return [part for part in (conditioning.context, conditioning.vector) if part is not None]


def _difference(mine: Sequence[Tensor], target: Sequence[Tensor]) -> float:
    return mean([float((a - b).square().mean()) for a, b in zip(mine, target, strict=True)])


def _conditionings(side: Side) -> list[Conditioning]:
    return [stage.parts[0][0] for stage in side.stages]


def _average(side: Side, evaluations: int) -> list[Tensor]:
    """The stages' conditionings, each weighted by how many evaluations it lasts.

    Least squares to all of them and to their average differ by a constant.
    """
    ends = [min(stage.until + 1, evaluations) for stage in side.stages[:-1]] + [evaluations]
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    parts = [_parts(conditioning) for conditioning in _conditionings(side)]
    return [
        sum((length / evaluations) * part for length, part in zip(lengths, column, strict=True))
        for column in zip(*parts, strict=True)
    ]
