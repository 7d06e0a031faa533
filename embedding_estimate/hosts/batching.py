"""Which texts are encoded in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Chunk(Protocol):
    """What a text encoder takes at a time, in WebUIs and in the standalone host."""

    multipliers: list[float]


def batches(texts: Sequence[Sequence[Chunk]], *, weighed_together: bool) -> list[list[int]]:
    """The places of texts, by batches in which each comes out as it does alone. `texts` holds the chunks of each.

    Texts of different numbers of chunks need batches of their own, because a batch fills up the shorter ones. Where the
    texts of a batch are `weighed_together` each text with weights also needs one, because the emphasis mode "Original"
    takes its mean over the batch.
    """
    by_kind: dict[tuple[int, int], list[int]] = {}
    for place, chunks in enumerate(texts):
        weighed = weighed_together and any(weight != 1 for chunk in chunks for weight in chunk.multipliers)
        by_kind.setdefault((len(chunks), place if weighed else -1), []).append(place)
    return list(by_kind.values())
