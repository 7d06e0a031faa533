"""Vectors and the vocabulary they live beside: where to start, in what units to move, how far to go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from embedding_estimate.model.host import BorrowedModel, Vectors

NORM_LIMIT = 60.0
"""Longest vector allowed, in median norms of the vocabulary. Trained vectors are much longer than a word's (emphasis
is reached that way), but length without end bends the neighbouring words and leaves fp16's range."""


@dataclass(frozen=True)
class VectorSpace:
    """Statistics of each encoder's token embedding table (V, width), and what follows from them."""

    mean: Mapping[str, Tensor]  # (width,)
    spread: Mapping[str, float]  # standard deviation over the whole table
    norm: Mapping[str, float]  # median over the vocabulary
    device: torch.device

    @classmethod
    @torch.no_grad()
    def of(cls, model: BorrowedModel) -> VectorSpace:
        tables = {key: table.float() for key, table in model.vocabulary().items()}
        return cls(
            mean={key: table.mean(0) for key, table in tables.items()},
            spread={key: float(table.std()) for key, table in tables.items()},
            norm={key: float(table.norm(dim=1).median()) for key, table in tables.items()},
            device=model.device,
        )

    def leaves(self, vectors: Vectors, device: torch.device | str) -> dict[str, Tensor]:
        """Fresh trainable tensors (N, width) on that device, in spreads, for which `vectors` gives these vectors.

        Those that are too long are shortened to just under the limit.
        """
        leaves = {}
        for key, value in vectors.items():
            there = value.detach().to(device)
            norm = there.norm(dim=1, keepdim=True).clamp(min=1e-12)  # (N, 1)
            share = (norm / self._limit(key)).clamp(max=0.99)
            direction = there / norm
            free = direction * share * self._limit(key) / (1 - share.square()).sqrt()
            leaves[key] = (free / self.spread[key]).requires_grad_()
        return leaves

    def vectors(self, leaves: Vectors) -> dict[str, Tensor]:
        """The vectors (N, width) that the leaves stand for, on the model's device; none as long as `NORM_LIMIT`.

        |v| = |x| / sqrt(1 + |x|^2 / limit^2): differentiable, and smooth, so that a line search meets no wall.
        """
        made = {}
        for key, value in leaves.items():
            free = value * self.spread[key]
            bounded = free / (1 + free.square().sum(dim=1, keepdim=True) / self._limit(key) ** 2).sqrt()
            made[key] = bounded.to(self.device)
        return made

    def _limit(self, key: str) -> float:
        return NORM_LIMIT * self.norm[key]

    def norm_ratio(self, vectors: Vectors) -> float:
        """The longest vector, in median norms of the vocabulary."""
        return max(float(value.detach().norm(dim=1).max()) / self.norm[key] for key, value in vectors.items())

    def random(self, tokens: int, seed: int) -> dict[str, Tensor]:
        """Vectors (tokens, width) that look like the vocabulary: its mean and spread, normal."""
        generator = torch.Generator().manual_seed(seed)
        return {
            key: mean + self.spread[key] * torch.randn(tokens, len(mean), generator=generator).to(mean)
            for key, mean in self.mean.items()
        }


def fit(vectors: Vectors, tokens: int, filling: Vectors | None = None) -> dict[str, Tensor]:
    """Vectors (n, width) cut, or filled up with `filling` (width,) or zeros, to (tokens, width)."""

    def fitted(key: str, value: Tensor) -> Tensor:
        fill = value.new_zeros(value.shape[1]) if filling is None else filling[key].to(value)
        return torch.cat([value[:tokens], fill.expand(max(0, tokens - len(value)), -1)])

    return {key: fitted(key, value) for key, value in vectors.items()}


def count(vectors: Vectors) -> int:
    """N, the same for every encoder."""
    return len(next(iter(vectors.values())))


def nearest(vectors: Tensor, table: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The rows of a table (V, width) that point most nearly the same way as each of the vectors (N, width).

    Returns their places in the table and their cosine similarities, both (N, count), the nearest first.
    """
    rows = table.float()
    similarities = normalize(vectors.to(rows), dim=1) @ rows.T / rows.norm(dim=1).clamp(min=1e-12)  # (N, V)
    best = similarities.topk(min(count, len(rows)), dim=1)
    return best.indices, best.values
