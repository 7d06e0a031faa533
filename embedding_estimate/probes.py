"""What the U-Net's cross-attentions read of a prompt, and how much each reading moves the prediction.

To first order the prediction changes by the sum over layers and rows of J_r d_r, where d_r is how what row r gathers
changes, its query held fixed, and J_r is the prediction's derivative by it: the Gauss-Newton view of the U-Net. J_r
is too large to keep. But for a vector s of random signs E[(s'J d)^2] = |J d|^2 (Hutchinson 1990), and s'J comes out of
one backward pass for all rows of all layers. So of each row that is kept there is its query q_r, its gradient
g_r = J_r's and the number a_r = g_r' m_r(prompt), m_r being what the row gathers, and

    err(c) ~ sum over rows of (g_r' m_r(c) - a_r)^2

counts each row's error in full and takes different rows' as independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from embedding_estimate.host import BorrowedModel, Conditioning, CrossAttention
from embedding_estimate.teacher import Side, States, by_stage


@dataclass(frozen=True)
class LayerProbes:
    """Rows of one cross-attention, from several states. In the precision of the U-Net."""

    attention: CrossAttention
    queries: Tensor  # (H, R, d)
    gradients: Tensor  # (H, R, d)

    def read(self, context: Tensor) -> Tensor:
        """g_r' m_r of a context (1, L, C): (R,) in fp32 or better. Differentiable."""
        keys, values = (heads(value, self.attention.heads)[0] for value in self.attention.read(context))  # (H, L, d)
        gathered = scaled_dot_product_attention(self.queries.to(keys)[None], keys[None], values[None])[0]  # (H, R, d)
        return (gathered * self.gradients.to(keys)).sum(dim=(0, 2))


@dataclass(frozen=True)
class Probes:
    """All layers' rows with what the prompt reads there, and the same for SDXL's vector."""

    layers: Sequence[LayerProbes]
    vector: Tensor | None  # (S, V): gradients by the conditioning's vector
    aim: Tensor  # (all R, and S): the prompt's readings

    def read(self, conditioning: Conditioning) -> Tensor:
        """The readings of a conditioning, one number a row; differentiable."""
        found = [layer.read(conditioning.context) for layer in self.layers]
        if self.vector is not None and conditioning.vector is not None:
            found.append(self.vector @ conditioning.vector[0])
        return torch.cat(found)

    def error(self, conditioning: Conditioning) -> Tensor:
        """The error that the rows foresee, in epsilon units; differentiable."""
        return (self.read(conditioning) - self.aim).square().sum()


def heads(value: Tensor, number: int) -> Tensor:
    """(B, T, H * d) to (B, H, T, d)."""
    return value.reshape(*value.shape[:-1], number, -1).transpose(1, 2)


def probe(
    model: BorrowedModel, side: Side, states: States, *, rows: int, batch: int, generator: torch.Generator
) -> Probes:
    """Probes of about `rows` rows in each layer, spread over the states; `batch` states go through together.

    Costs a forward and a backward pass per state. Each stretch of a schedule is read with its own conditioning; a
    side that composes predictions with `AND` has no one context to read, and is not for this.
    """
    watches = [_Watch(attention, math.ceil(rows / len(states)), generator) for attention in model.cross_attentions()]
    vectors: list[Tensor] = []
    aims: list[Tensor] = []
    for part in by_stage(side, states[states.evaluation.argsort(stable=True)]):
        conditioning = side.stage(int(part.evaluation[0])).parts[0][0]
        for chunk in part.split(batch):
            vector = _backward(model, chunk, conditioning, watches, generator, 1 / math.sqrt(len(states)))
            if vector is not None and conditioning.vector is not None:
                vectors.append(vector)
                aims.append(vector @ conditioning.vector[0])
        for watch in watches:
            watch.aim(conditioning.context)
    return Probes(
        [watch.probes() for watch in watches],
        torch.cat(vectors) if vectors else None,
        torch.cat([aim for watch in watches for aim in watch.aims] + aims),
    )


def _backward(
    model: BorrowedModel,
    states: States,
    conditioning: Conditioning,
    watches: Sequence[_Watch],
    generator: torch.Generator,
    scale: float,
) -> Tensor | None:
    """One pass of states (B, ...) with the watches on; returns the gradients (B, V) by SDXL's vector."""
    by = conditioning.vector
    vector = None if by is None else by.detach().expand(len(states), -1).clone().requires_grad_()
    with ExitStack() as stack, torch.enable_grad():
        for watch in watches:
            stack.enter_context(watch.watching())
        denoised = model.denoise(states.x, states.sigma, Conditioning(conditioning.context.detach(), vector))
        signs = torch.randint(2, denoised.shape, generator=generator).to(denoised) * 2 - 1  # (B, C, h, w)
        leaves = [watch.leaf for watch in watches] + ([] if vector is None else [vector])
        # gradients of +-1, so that a host that scales those of half precision leaves them alone
        gradients = torch.autograd.grad(denoised, leaves, signs)
    size = denoised[0].numel()
    weights = scale / (states.sigma * math.sqrt(size))  # (B,): to epsilon units, mean over elements and states
    for watch, gradient in zip(watches, gradients, strict=False):
        watch.keep(gradient, weights)
    return None if vector is None else gradients[-1] * weights[:, None]


class _Watch:
    """Picks rows of one cross-attention while the U-Net runs."""

    def __init__(self, attention: CrossAttention, rows: int, generator: torch.Generator):
        """`rows` of each state."""
        self.attention = attention
        self.rows = rows
        self.generator = generator
        self.aims: list[Tensor] = []  # (R,) each
        self._kept: list[LayerProbes] = []
        self._aimed = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """During one pass of the U-Net."""
        handles = [
            self.attention.to_q.register_forward_hook(self._see_queries),
            self.attention.to_out.register_forward_pre_hook(self._add_leaf),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _see_queries(self, _module: nn.Module, _args: Any, queries: Tensor) -> None:
        batch, total = queries.shape[:2]
        picked = torch.rand(batch, total, generator=self.generator).argsort(dim=1)[:, : self.rows]  # (B, rows)
        self.picked = torch.arange(batch, device=queries.device)[:, None], picked.to(queries.device)
        self.queries = queries.detach()[self.picked]  # (B, rows, H * d)

    def _add_leaf(self, _module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A zero by which to differentiate."""
        self.leaf = torch.zeros_like(args[0], requires_grad=True)  # (B, T, H * d)
        return (args[0] + self.leaf, *args[1:])

    def keep(self, gradient: Tensor, weights: Tensor) -> None:
        """The gradient (B, T, H * d) at the rows picked; `weights` (B,) are those of the states."""
        total = gradient.shape[1]
        weights = weights * math.sqrt(total / self.picked[1].shape[1])  # each row stands for so many
        picked = gradient[self.picked] * weights[:, None, None].to(gradient)
        queries, gradients = (
            heads(value, self.attention.heads).transpose(0, 1).flatten(1, 2) for value in (self.queries, picked)
        )
        self._kept.append(LayerProbes(self.attention, queries, gradients))
        del self.leaf, self.queries

    @torch.no_grad()
    def aim(self, context: Tensor) -> None:
        """Reads the prompt's context (1, L, C) with the rows kept since the last time."""
        self.aims += [probes.read(context) for probes in self._kept[self._aimed :]]
        self._aimed = len(self._kept)

    def probes(self) -> LayerProbes:
        return LayerProbes(
            self.attention,
            torch.cat([kept.queries for kept in self._kept], dim=1),
            torch.cat([kept.gradients for kept in self._kept], dim=1),
        )
