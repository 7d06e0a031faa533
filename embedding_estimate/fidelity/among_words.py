"""Figures among other words: what an embedding does in prompts that it was not trained in.

In a context T, the error of T[embedding] against T[prompt] is compared with the errors of T[words without weights] and
T[nothing]. Errors are summed over the contexts, so a context counts by how much can go wrong in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.model.host import Vectors
from embedding_estimate.model.vectors import count
from embedding_estimate.teaching.sides import Side, States, error
from embedding_estimate.teaching.teacher import Teacher, Trajectory

TRAJECTORY = Trajectory("Euler", "Karras", 10, 7.0)
NO_EMPHASIS = 0.01  # weights with less effect than this share of err(empty) count as no weights
PICTURED_SEEDS = 2  # of the images in one of the contexts


@dataclass(frozen=True)
class Context:
    """A context to measure in: states of one trajectory of T[prompt], and the errors to compare with."""

    template: str
    states: States
    words: float  # err(T[bare words]): the same words, every weight of the prompt 1
    nothing: float  # err(T[nothing])

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        template: str,
        trajectory: Trajectory,
        seed: int,
        batch: int,
        *,
        at: Collection[int] = (),
    ) -> Context:
        """Measured `at` some evaluations of the trajectory, or at all of them."""
        prompt = teacher.replaced(template.replace("{}", teacher.task.text), trajectory)
        nothing = teacher.replaced(template.replace("{}", ""), trajectory)
        states = teacher.record(prompt, trajectory, [seed], batch, at=at)
        words = bare_words(teacher, template, prompt, trajectory)
        return cls(template, states, error(words, states, batch), error(nothing, states, batch))

    def error(self, teacher: Teacher, vectors: Vectors, batch: int) -> float:
        """err(T[vectors]). `teacher` must have the weight that the vectors are typed with."""
        return error(teacher.student(vectors, self.template), self.states, batch)


def bare_words(teacher: Teacher, template: str, prompt: Side, trajectory: Trajectory) -> Side:
    """The prompt without its weights in a context whose own weights stay.

    The context's weights go too if vectors cannot stand for the prompt: with several chunks, a schedule or `AND`.
    """
    plain = teacher.model.token_vectors(teacher.task.text)
    if prompt.scheduled or prompt.composed or not 1 <= count(plain) <= teacher.model.info.chunk_tokens:
        return teacher.replaced(template.replace("{}", teacher.task.text), trajectory, weights=False)
    return teacher.typed(1.0).student(plain, template, lasting=True)


def pictured_context(teacher: Teacher, templates: Sequence[str]) -> str:
    """The context for images: the first that fits into one chunk, or else the first."""
    model = teacher.model

    def fits_a_chunk(template: str) -> bool:
        return count(model.token_vectors(template.replace("{}", ""))) <= model.info.chunk_tokens

    return next(filter(fits_a_chunk, templates), templates[0])


def pictured(teacher: Teacher, vectors: Vectors, template: str, trajectory: Trajectory) -> dict[str, Side]:
    """The prompts of the images in a context: T[prompt], T[vectors] and T[words without weights]."""
    prompt = teacher.replaced(template.replace("{}", teacher.task.text), trajectory)
    return {
        "prompt": prompt,
        "embedding": teacher.student(vectors, template),
        "without weights": bare_words(teacher, template, prompt, trajectory),
    }


def work(contexts: int, rows: int) -> int:
    """U-Net passes of one latent in so many contexts, for `rows` embeddings or typed weights."""
    return contexts * TRAJECTORY.steps * (2 + 2 + rows)  # both sides of the guidance, words, nothing


def standard_error(errors: Tensor, baseline: Tensor) -> float | None:
    """The jackknife's standard error of 1 - sum of errors (n,) / sum of the baseline's errors (n,).

    The n samples are independent: seeds or contexts. None for a single sample, or if the baseline has no error.
    """
    number = len(errors)
    left_out = baseline.sum() - baseline  # (n,)
    if number < 2 or not bool((left_out > 0).all()):
        return None
    values = 1 - (errors.sum() - errors) / left_out
    return float(((number - 1) * (values - values.mean()).square().mean()).sqrt())


def by_seed(errors: Tensor, states: States) -> Tensor:
    """Means of errors (S,) over the states of each seed: (seeds,), on the CPU and in fp64, which not every
    device has."""
    errors, seeds = errors.cpu().double(), states.seed.cpu()
    return torch.stack([errors[seeds == seed].mean() for seed in dict.fromkeys(seeds.tolist())])


@dataclass(frozen=True)
class InContexts:
    """The figures over all contexts."""

    explained: float
    without_weights: float
    emphasis: float | None
    worst: str
    rows: Sequence[Mapping[str, Any]]
    standard_errors: Mapping[str, float | None]

    @classmethod
    def of_weight(cls, measured: Sequence[tuple[float, Context, float]], weight: float) -> InContexts:
        """The figures for one typed weight, from (typed weight, context, error)."""
        return cls.of([(here, error) for typed, here, error in measured if typed == weight])

    @classmethod
    def of(cls, measured: Sequence[tuple[Context, float]]) -> InContexts:
        mine = [error for _, error in measured]
        words, nothing = [here.words for here, _ in measured], [here.nothing for here, _ in measured]
        emphasised = sum(words) >= NO_EMPHASIS * sum(nothing)
        worst, _ = max(measured, key=lambda pair: pair[1] - pair[0].words)
        tensors = [torch.tensor(values, dtype=torch.float64) for values in (mine, words, nothing)]
        return cls(
            explained=1 - ratio(sum(mine), sum(nothing)),
            without_weights=1 - ratio(sum(words), sum(nothing)),
            emphasis=1 - ratio(sum(mine), sum(words)) if emphasised else None,
            worst=worst.template,
            rows=[
                {"context": here.template, "embedding": error, "without weights": here.words, "nothing": here.nothing}
                for here, error in measured
            ],
            standard_errors={
                "explained_in_context": standard_error(tensors[0], tensors[2]),
                "emphasis_in_context": standard_error(tensors[0], tensors[1]) if emphasised else None,
            },
        )


def ratio(a: float, b: float) -> float:
    """a / b; 0 if both are 0, infinite if only b is 0."""
    return a / b if b else (0.0 if a == 0 else float("inf"))
