"""The one policy for memory that runs out: the next way, and in the end the last error."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import pytest
import torch

from embedding_estimate.errors.out_of_memory import first_that_fits, ran_out
from embedding_estimate.progress import StopReason

FULL = RuntimeError("CUDA error: out of memory")


def fails(error: Exception) -> Callable[[], int]:
    def way() -> int:
        raise error

    return way


def test_what_says_that_memory_ran_out() -> None:
    assert ran_out(MemoryError()) and ran_out(FULL) and ran_out(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    assert ran_out(RuntimeError("Invalid buffer size: 12.00 GiB"))  # Apple's MPS
    assert not ran_out(RuntimeError("shapes do not fit")) and not ran_out(ValueError("out of memory"))
    assert StopReason.of(FULL) is StopReason.NO_MEMORY and StopReason.of(ValueError("x")) is StopReason.FAILED


def test_the_first_way_that_fits_is_taken_and_no_other_is_asked_for() -> None:
    asked: list[str] = []

    def ways() -> Iterator[Callable[[], int]]:
        for name, way in (("a", fails(FULL)), ("b", fails(MemoryError())), ("c", lambda: 3), ("d", lambda: 4)):
            asked.append(name)
            yield way

    assert first_that_fits(ways()) == 3 and asked == ["a", "b", "c"]


def test_the_last_error_is_raised_and_every_other_kind_at_once() -> None:
    last = MemoryError("the last")
    with pytest.raises(MemoryError, match="the last"):
        first_that_fits([fails(FULL), fails(last)])
    with pytest.raises(KeyError, match="a bug"):
        first_that_fits([fails(KeyError("a bug")), lambda: 1])


def test_a_way_that_failed_holds_nothing_while_the_next_is_tried() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def large() -> int:
        value = torch.zeros(8)
        held.append(weakref.ref(value))
        raise MemoryError

    def small() -> int:
        return sum(reference() is not None for reference in held)

    assert first_that_fits([large, small]) == 0
