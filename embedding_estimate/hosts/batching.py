"""Which texts may be encoded in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Chunk(Protocol):
    """What a text encoder takes at a time, in WebUIs and in the standalone host."""

    multipliers: list[float]


def independent(texts: Sequence[Sequence[Chunk]]) -> bool:
    """Whether each text comes out of a batch of these texts as it does alone. `texts` holds the chunks of each.

    Texts with weights do not, because the emphasis mode "Original" takes its mean over the batch. Texts of different
    numbers of chunks do not either, because a batch fills up the shorter ones.
    """
    weights = {weight for chunks in texts for chunk in chunks for weight in chunk.multipliers}
    return weights <= {1.0} and len({len(chunks) for chunks in texts}) == 1
