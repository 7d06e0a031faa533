"""Which texts may be encoded together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Chunk(Protocol):
    """What a text encoder takes at a time, as WebUIs and the standalone host have it."""

    multipliers: list[float]


def independent(texts: Sequence[Sequence[Chunk]]) -> bool:
    """Whether each text, given its chunks, comes out of a batch of them as it does alone.

    Not with weights, since the emphasis mode "Original" takes its mean over the batch, nor with fewer chunks than
    another, since a batch has as many of each.
    """
    weights = {weight for chunks in texts for chunk in chunks for weight in chunk.multipliers}
    return weights <= {1.0} and len({len(chunks) for chunks in texts}) == 1
