"""How weights act on the output of a text encoder: the WebUI's four modes.

Every mode is a function of z (B, T, C), the encoder's output for one chunk of each text in the batch, and the
multipliers m (B, T). The modes "Ignore" and "None" do the same here. "None" differs in the grammar, which then reads
brackets as text.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from embedding_estimate.errors import SettingsError, nearest, quoted

Emphasis = Callable[[Tensor, Tensor], Tensor]


def original(z: Tensor, multipliers: Tensor) -> Tensor:
    """z' = m z, then z' * mean(z) / mean(z'). Both means are taken over the whole batch, not over one text."""
    scaled = no_norm(z, multipliers)
    return scaled * (z.mean() / scaled.mean())


def no_norm(z: Tensor, multipliers: Tensor) -> Tensor:
    """z' = m z."""
    return z * multipliers[..., None]


def unchanged(z: Tensor, multipliers: Tensor) -> Tensor:
    """z' = z."""
    return z


def apart(weigh: Emphasis) -> Emphasis:
    """The same for each text as if it were the whole batch."""
    return lambda z, multipliers: torch.cat([weigh(*one) for one in zip(z.split(1), multipliers.split(1), strict=True)])


def by_name(name: str) -> Emphasis:
    """The mode with this name: "Original", "No norm", "Ignore" or "None".

    Raises SettingsError for any other name.
    """
    modes: dict[str, Emphasis] = {
        "Original": original,
        "No norm": no_norm,
        "Ignore": unchanged,
        "None": unchanged,
    }
    if name not in modes:
        raise SettingsError([f"emphasis={quoted(name)}: unknown mode; {nearest(name, modes)}"])
    return modes[name]
