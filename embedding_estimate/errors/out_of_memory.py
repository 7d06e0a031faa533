"""What is done where memory runs out: `first_that_fits` tries the next way, from the best to the most modest.

A pass is halved (`teaching.sides`), a cheaper way is taken (`teaching.probing`), the training goes on with less memory
(`training.loop`), a copy is done without (`hosts.webui.exact`). Each says so where the user should know. Where no way
is left the last one's error is raised, and whoever has something to keep ends with that: see `StopReason.of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

ADVICE = "out of memory: turn on Save memory, set Batch size to 1, or lower Width or Height, and try again"

WORDS = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "alloc_failed",  # cuBLAS
    "unable to find an engine",  # cuDNN
    "invalid buffer size",  # MPS
    "not enough gpu video memory",  # DirectML
    "out_of_device_memory",  # oneAPI
    "out_of_resources",
)


def first_that_fits(ways: Iterable[Callable[[], T]]) -> T:
    """What the first of the ways returns for which there is memory; the next one is asked for only when it is needed.

    Raises any other error at once, and the last way's where memory runs out there too. A way that failed has let go of
    what it held by then, for its error is kept without the traceback.

    >>> first_that_fits([lambda: 1, lambda: 2])
    1
    """
    last: Exception | None = None
    for way in ways:
        try:
            return way()
        except Exception as error:
            if not ran_out(error):
                raise
            last = error.with_traceback(None)
            last.__context__ = None
    raise last or ValueError("there is no way to try")


def ran_out(error: BaseException) -> bool:
    """Whether an error reports that memory has run out, on any device."""
    import torch  # here, because the command line must not load torch for this

    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)
