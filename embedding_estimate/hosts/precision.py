"""Gradients through networks in half precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class GradientScale:
    """Loss scaling inside one pass through a network in fp16 (Micikevicius et al. 2018). Callers do not see it.

    A gradient of 1e-8, common for a mean over a latent, is zero in fp16. Where the gradient enters the network at its
    output, it is multiplied so that its largest element is 1. Where it leaves, in fp32, it is divided by the same
    factor. The device computes the factor in each backward pass, so nothing waits and nothing needs tuning.
    """

    def __init__(self) -> None:
        self.factor: Tensor | None = None

    def enter(self, output: Tensor) -> Tensor:
        """Marks the network's output (fp32): backward, this is where the gradient comes in."""
        return _scale_up(output, self)

    def leave(self, value: Tensor) -> Tensor:
        """Marks one of its inputs (fp32): backward, this is where a gradient goes out."""
        return _scale_down(value, self)


class _ScaleUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, scale: GradientScale) -> Tensor:
        ctx.scale = scale
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        largest = torch.linalg.vector_norm(gradient, math.inf)
        ctx.scale.factor = largest.clamp(min=1e-30).reciprocal()  # a gradient of zeros stays one
        return gradient * ctx.scale.factor, None


class _ScaleDown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: GradientScale) -> Tensor:
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / ctx.scale.factor, None


_scale_up: Callable[[Tensor, GradientScale], Tensor] = _ScaleUp.apply
_scale_down: Callable[[Tensor, GradientScale], Tensor] = _ScaleDown.apply
