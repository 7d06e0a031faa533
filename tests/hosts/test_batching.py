"""Texts are encoded in as few batches as leave each what it is alone."""

from types import SimpleNamespace

import pytest

from embedding_estimate.hosts.batching import Chunk, batches


def text(*chunks: list[float]) -> list[Chunk]:
    return [SimpleNamespace(multipliers=weights) for weights in chunks]


PLAIN, WEIGHED, LONG = text([1.0, 1.0]), text([1.0, 1.3]), text([1.0], [1.0])


@pytest.mark.parametrize(
    ("texts", "apart", "together"),
    [
        ([PLAIN, PLAIN], [[0, 1]], [[0, 1]]),
        ([PLAIN, WEIGHED, PLAIN, WEIGHED], [[0, 1, 2, 3]], [[0, 2], [1], [3]]),
        ([LONG, PLAIN, LONG, PLAIN], [[0, 2], [1, 3]], [[0, 2], [1, 3]]),
        ([text([1.0], [0.9]), LONG, PLAIN], [[0, 1], [2]], [[0], [1], [2]]),
        ([], [], []),
    ],
)
def test_batches(texts: list[list[Chunk]], apart: list[list[int]], together: list[list[int]]) -> None:
    assert batches(texts, weighed_together=False) == apart
    assert batches(texts, weighed_together=True) == together
