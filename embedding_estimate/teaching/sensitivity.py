"""How much the prediction moves with what a cross-attention gathers: exactly, and cheaper for want of memory.

Each way runs a pass of states and gives for every row a random vector g, such that the mean of (g'd)^2 over the draws
is how far the prediction moves, squared and in epsilon units, when that row gathers d more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from embedding_estimate.model.host import BorrowedModel, Conditioning, CrossAttention
from embedding_estimate.teaching.sides import States, epsilon

STEP = 0.05  # of a forward difference, in standard deviations: small, and yet above half precision's noise


@dataclass(frozen=True)
class Pass:
    """States that go through the U-Net together, under one conditioning."""

    model: BorrowedModel
    attentions: Sequence[CrossAttention]
    states: States
    conditioning: Conditioning

    def denoise(self, vector: Tensor | None) -> Tensor:
        """Denoised (B, C, h, w), with SDXL's vector (B, V) instead of the conditioning's own."""
        conditioning = Conditioning(self.conditioning.context, vector)
        return self.model.denoise(self.states.x, self.states.sigma, conditioning)

    @property
    def vector(self) -> Tensor | None:
        """SDXL's vector for each state (B, V)."""
        own = self.conditioning.vector
        return None if own is None else own.expand(len(self.states), -1)


@dataclass(frozen=True)
class Sensed:
    """What a pass has shown. Weights are apart, since half precision has no room for the product."""

    vectors: list[Tensor]  # g (B, T, H * d) for each cross-attention, and (B, V) for SDXL's vector
    weights: Tensor  # (B,) fp32, by which each state's g is multiplied


Sensitivity = Callable[[Pass, torch.Generator], Sensed]


def by_gradient(run: Pass, generator: torch.Generator) -> Sensed:
    """The gradients of the prediction's product with random signs: a backward pass."""
    leaves: dict[int, Tensor] = {}

    def leaf(layer: int, gathered: Tensor) -> Tensor:
        if layer not in leaves:  # a checkpointed block asks again
            leaves[layer] = torch.zeros_like(gathered, requires_grad=True)
        return leaves[layer]

    with torch.enable_grad(), adding(run.attentions, leaf):
        vector = None if run.vector is None else run.vector.detach().clone().requires_grad_()
        denoised = run.denoise(vector)
        inputs = [leaves[layer] for layer in range(len(run.attentions))] + ([] if vector is None else [vector])
        # gradients of +-1 go in: a host that scales those of half precision leaves these alone
        gradients = torch.autograd.grad(denoised, inputs, _signs(denoised, generator))
    # to epsilon units, and to the mean over elements
    return Sensed(list(gradients), 1 / (run.states.sigma * math.sqrt(denoised[0].numel())))


def by_differences(run: Pass, generator: torch.Generator) -> Sensed:
    """One number for each cross-attention, from a forward pass with random signs added to what it gathers."""
    with torch.no_grad():
        plain = run.denoise(run.vector)
    signed = [
        _moved(run, layer, plain, generator) * _signs(gathered.float(), generator)
        for layer, gathered in enumerate(_gathered(run))
    ]
    return Sensed(signed, torch.ones_like(run.states.sigma))


def uniform(run: Pass, generator: torch.Generator) -> Sensed:
    """Every cross-attention counts the same, by the relative error of what it gathers."""
    signed = [_signs(g.float(), generator) / max(float(g.float().norm()), 1e-12) for g in _gathered(run)]
    return Sensed(signed, torch.ones_like(run.states.sigma))


@contextmanager
def adding(attentions: Sequence[CrossAttention], extra: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Within, `extra(layer, gathered (B, T, H * d))` is added to what that layer's heads gather."""

    def hook(layer: int) -> Callable[..., tuple[Tensor, ...]]:
        def add(_module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            more = extra(layer, args[0])
            return args if more is None else (args[0] + more, *args[1:])

        return add

    with ExitStack() as stack:
        for layer, attention in enumerate(attentions):
            stack.callback(attention.to_out.register_forward_pre_hook(hook(layer)).remove)
        yield


@torch.no_grad()
def _gathered(run: Pass) -> list[Tensor]:
    """What each layer's heads gather (B, T, H * d) and, last, SDXL's vector."""
    seen: dict[int, Tensor] = {}
    with adding(run.attentions, lambda layer, gathered: seen.update({layer: gathered})):
        run.denoise(run.vector)
    return [seen[layer] for layer in range(len(run.attentions))] + ([] if run.vector is None else [run.vector])


@torch.no_grad()
def _moved(run: Pass, layer: int, plain: Tensor, generator: torch.Generator) -> float:
    """How far an element of a layer, or of the vector behind the last of them, moves the prediction per unit."""
    sizes: list[tuple[float, int]] = []  # of the step, and elements of a state

    def shift(value: Tensor) -> Tensor:
        size = STEP * float(value.float().std().clamp(min=1e-6))
        sizes.append((size, value[0].numel()))
        return size * _signs(value, generator)

    vector = run.vector
    if vector is not None and layer == len(run.attentions):
        vector = vector + shift(vector)
    with adding(run.attentions, lambda at, gathered: shift(gathered) if at == layer else None):
        change = epsilon(plain, run.states.sigma, run.denoise(vector))
    size, elements = sizes[0]
    return math.sqrt(float(change.square().mean()) / elements) / size


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """+-1 at random, of that shape; drawn on the CPU, so that the device does not matter."""
    return (torch.randint(2, like.shape, generator=generator) * 2 - 1).to(like)
