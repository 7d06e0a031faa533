"""What a borrowed model gets back, and what stays as it is by then."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from embedding_estimate.hosts.lending import given_back


def test_somebody_elses_books_stay_as_they_are_by_then() -> None:
    layer = nn.Linear(2, 2)
    layer.book_old, layer.own = 1, 1
    with given_back([layer], but=("book_",)):
        del layer.book_old
        layer.book_new, layer.own, layer.added = 2, 2, 2
    assert not hasattr(layer, "book_old") and layer.book_new == 2
    assert layer.own == 1 and not hasattr(layer, "added")


def test_weights_that_are_moved_meanwhile_are_not_kept_beside_the_new_ones() -> None:
    layer = nn.Linear(2, 2)
    before = weakref.ref(layer.weight)
    with given_back([layer], but=("_parameters",)):
        moved = nn.Parameter(torch.ones(2, 2))
        layer.weight = moved
        gc.collect()
        assert before() is None
    assert layer.weight is moved
