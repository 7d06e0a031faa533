"""Coordinates for the vectors in which a loss is about as steep in every direction.

Near its start a loss is about |J x|^2, J being the derivative of everything that is compared by the vectors x (N, W) of
an encoder: the Gauss-Newton view. For random signs s, E[(J's)(J's)'] = J'J (Hutchinson 1990), and J's is one backward
pass. A few of them say little about all N x W directions, but enough about a product of two factors, as in Martens &
Grosse 2015:

    J'J ~ diag(h) (x) C,    h_n = mean square of row n of the J's,    C = I + mean of z z',    z = rows / sqrt(h_n)

The mean of z z' has a mean eigenvalue of 1, so that the identity, which the directions unseen are left with, weighs as
much as what was seen. Vectors are trained as x = diag(h)^-1/2 y C^-1/2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.host import Vectors
from embedding_estimate.objectives import Objective, comparing
from embedding_estimate.vectors import VectorSpace

SAMPLES = 8  # backward passes
FLOOR = 1e-3  # of the mean h, for vectors that hardly count


@dataclass(frozen=True)
class Preconditioned(VectorSpace):
    """A vector space with other leaves."""

    sizes: Mapping[str, Tensor]  # (N, 1): h^-1/2, their geometric mean over all encoders 1
    directions: Mapping[str, Tensor]  # (r, W): eigenvectors of C, the others' eigenvalues being 1
    factors: Mapping[str, Tensor]  # (r,): their eigenvalues^-1/2

    def leaves(self, vectors: Vectors, device: torch.device | str) -> dict[str, Tensor]:
        """As in any `VectorSpace`."""
        found = {}
        for key, value in super().leaves(vectors, device).items():
            leaf = _scaled(value.detach() / self.sizes[key].to(value), self.directions[key], 1 / self.factors[key])
            found[key] = leaf.requires_grad_()
        return found

    def vectors(self, leaves: Vectors) -> dict[str, Tensor]:
        """As in any `VectorSpace`."""
        plain = {}
        for key, value in leaves.items():
            plain[key] = self.sizes[key].to(value) * _scaled(value, self.directions[key], self.factors[key])
        return super().vectors(plain)


def preconditioned(
    space: VectorSpace, objective: Objective, start: Vectors, drawn: Sequence[Any], generator: torch.Generator
) -> VectorSpace:
    """The space with coordinates for what was drawn of the objective, from `start` on.

    The space itself where the gradients there are not finite, which training then finds out by itself.
    """
    samples = _samples(space, objective, start, drawn, generator)
    squares = {key: value.square().mean(dim=(0, 2)) for key, value in samples.items()}  # (N,)
    joined = torch.cat(list(squares.values()))
    if not torch.isfinite(joined).all() or not joined.any():
        return space
    floor = FLOOR * joined.mean()
    scale = float((joined + floor).log().mean().exp())
    sizes, directions, factors = {}, {}, {}
    for key, gradients in samples.items():
        h = squares[key] + floor
        z = (gradients / h.sqrt()[:, None]).flatten(0, 1)  # (samples * N, W)
        _, deviations, directions[key] = torch.linalg.svd(z / math.sqrt(len(z)), full_matrices=False)
        factors[key] = (1 + deviations.square()).rsqrt()
        sizes[key] = (scale / h).sqrt()[:, None]
    return Preconditioned(**vars(space), sizes=sizes, directions=directions, factors=factors)


def _samples(
    space: VectorSpace, objective: Objective, start: Vectors, drawn: Sequence[Any], generator: torch.Generator
) -> dict[str, Tensor]:
    """`SAMPLES` J's for other signs each: (SAMPLES, N, W) on the CPU, all in one unknown unit."""

    def signed(prediction: Tensor, target: Tensor) -> Tensor:
        signs = torch.randint(2, prediction.shape, generator=generator).to(prediction) * 2 - 1
        return (signs * prediction).mean()

    projected = comparing(objective, signed)
    found: list[dict[str, Tensor]] = []
    for _ in range(SAMPLES):
        leaves = space.leaves(start, "cpu")
        for draw in drawn:
            torch.autograd.backward(projected.loss(space.vectors(leaves), draw))
        found.append({key: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for key, leaf in leaves.items()})
    return {key: torch.stack([sample[key] for sample in found]) for key in found[0]}


def _scaled(value: Tensor, directions: Tensor, factors: Tensor) -> Tensor:
    """(N, W) with its parts along directions (r, W) multiplied by factors (r,)."""
    along = value @ directions.to(value).T  # (N, r)
    return value + (along * (factors.to(value) - 1)) @ directions.to(value)
