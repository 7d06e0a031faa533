"""Coordinates for the vectors in which a loss is about as steep in every direction.

Near its start a loss is about |r + J x|^2, r being the residuals and J their derivative by the vectors x (N, W) of an
encoder: the Gauss-Newton view, whose curvature is J'J. For random signs s, E[(J's)(J's)'] = J'J (Hutchinson 1990), and
J's is one backward pass. A few of them say little about all N x W directions, but enough about a product of two
factors, as in Martens & Grosse 2015:

    J'J and a prior ~ diag(h) (x) C,    h_n = mean square of row n of the J's
                                        C = I + mean of z z',    z = rows / sqrt(h_n)

The mean of z z' has a mean eigenvalue of 1, so that the identity, which the directions unseen are left with, weighs as
much as what was seen. Vectors are trained as x = diag(h)^-1/2 y C^-1/2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.model.host import Vectors
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.objectives.objective import Objective

SAMPLES = 8  # backward passes
FLOOR = 1e-3  # of the mean h, for vectors that hardly count


@dataclass(frozen=True)
class Preconditioned(VectorSpace):
    """A vector space whose leaves are y (N, W): spreads, stretched where the loss is steep."""

    sizes: Mapping[str, Tensor]  # (N, 1): h^-1/2, their geometric mean over all encoders 1
    directions: Mapping[str, Tensor]  # (r, W): eigenvectors of C, the others' eigenvalues being 1
    factors: Mapping[str, Tensor]  # (r,): their eigenvalues^-1/2

    def leaves(self, vectors: Vectors, device: torch.device | str) -> dict[str, Tensor]:
        leaves = {}
        for key, value in super().leaves(vectors, device).items():
            leaf = _scaled(value.detach() / self.sizes[key], self.directions[key], 1 / self.factors[key])
            leaves[key] = leaf.requires_grad_()
        return leaves

    def vectors(self, leaves: Vectors) -> dict[str, Tensor]:
        plain = {}
        for key, value in leaves.items():
            plain[key] = self.sizes[key] * _scaled(value, self.directions[key], self.factors[key])
        return super().vectors(plain)


def preconditioned(
    space: VectorSpace,
    objective: Objective[Any],
    start: Vectors,
    draws: Iterator[Any],
    generator: torch.Generator,
    device: torch.device | str,
) -> VectorSpace:
    """The space with coordinates for an objective near `start`, for leaves on that device; a draw for each sample.

    The space itself where the gradients there are zero or not finite, which training then finds out by itself.
    """
    samples = _samples(space, objective, start, draws, generator)
    squares = {key: value.square().mean(dim=(0, 2)) for key, value in samples.items()}  # (N,)
    joined = torch.cat(list(squares.values()))
    if not torch.isfinite(joined).all() or not joined.any():
        return space
    floor = FLOOR * joined.mean()
    scale = (joined + floor).log().mean().exp()
    sizes, directions, factors = {}, {}, {}
    for key, gradients in samples.items():
        h = squares[key] + floor
        z = (gradients / h.sqrt()[:, None]).flatten(0, 1)  # (samples * N, W)
        _, deviations, axes = torch.linalg.svd(z / math.sqrt(len(z)), full_matrices=False)  # (r,), (r, W)
        dtype = start[key].dtype
        directions[key] = axes.to(device, dtype)
        factors[key] = (1 + deviations.square()).rsqrt().to(device, dtype)
        sizes[key] = (scale / h).sqrt()[:, None].to(device, dtype)
    return Preconditioned(**vars(space), sizes=sizes, directions=directions, factors=factors)


def _samples(
    space: VectorSpace, objective: Objective[Any], start: Vectors, draws: Iterator[Any], generator: torch.Generator
) -> dict[str, Tensor]:
    """`SAMPLES` J's, in one unknown unit: (SAMPLES, N, W) in double precision, in which no square is lost."""

    def signed(prediction: Tensor, target: Tensor) -> Tensor:
        """Of M numbers, whose mean square has the curvature J'J / M."""
        signs = torch.randint(2, prediction.shape, generator=generator).to(prediction) * 2 - 1
        return (signs * prediction).sum() / math.sqrt(prediction.numel())

    projected = replace(objective, loss_function=signed)
    samples: list[dict[str, Tensor]] = []
    for _ in range(SAMPLES):
        leaves = space.leaves(start, "cpu")
        torch.autograd.backward(projected.loss(space.vectors(leaves), next(draws)))
        samples.append(
            {key: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for key, leaf in leaves.items()}
        )
    return {key: torch.stack([sample[key] for sample in samples]).double() for key in samples[0]}


def _scaled(value: Tensor, directions: Tensor, factors: Tensor) -> Tensor:
    """(N, W) with its parts along directions (r, W) multiplied by factors (r,)."""
    along = value @ directions.T  # (N, r)
    return value + (along * (factors - 1)) @ directions
