"""Gradients through U-Nets that add to a tensor in place after a LayerNorm has read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def norms_keep_their_input(unet: nn.Module) -> Iterator[None]:
    """Within, LayerNorms read a copy where a gradient is wanted, for which they need what they have read."""
    norms = [part for part in unet.modules() if isinstance(part, nn.LayerNorm)]
    handles = [norm.register_forward_pre_hook(_copied) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copied(_norm: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if not torch.is_grad_enabled():
        return None
    first: Tensor
    first, *others = arguments
    return (first.clone(), *others)
