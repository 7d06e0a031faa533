"""Ordinary tensors in the place of those from inference mode, through which no gradient goes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def thaw(modules: Sequence[nn.Module]) -> None:
    """Makes ordinary tensors of the weights and buffers that come from inference mode.

    Weights that modules share stay shared. One is held twice at a time, not all of them.
    """
    places: dict[int, list[tuple[Any, str]]] = {}  # by identity of the weight, where it stands
    for part in dict.fromkeys(part for module in modules for part in module.modules()):
        for table in (part._parameters, part._buffers):
            for name, value in table.items():
                if value is not None and _locked(value):
                    places.setdefault(id(value), []).append((table, name))
    value = None  # or it would hold the last one
    with torch.inference_mode(False):
        for standing in places.values():
            first, name = standing[0]
            ordinary = first[name].detach().clone()
            if isinstance(first[name], nn.Parameter):
                ordinary = nn.Parameter(ordinary, False)
            for table, name in standing:
                table[name] = ordinary


def ordinary(value: Tensor) -> Tensor:
    """The tensor, or a copy of it where it comes from inference mode."""
    with torch.inference_mode(False):
        return value.clone() if value.is_inference() else value


def _locked(value: Tensor) -> bool:
    """Whether a tensor is from inference mode, or was and has been moved since."""
    if value.is_inference():
        return True
    try:
        _ = value._version
    except RuntimeError:
        return True
    return False
