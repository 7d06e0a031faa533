"""What is said of an exception that ends a job or a part of it: a line for the user, a traceback for the log."""

from __future__ import annotations

import logging

from embedding_estimate.errors import EstimateError
from embedding_estimate.errors.out_of_memory import ran_out


def one_line(error: Exception) -> str:
    """What went wrong, in one line."""
    if ran_out(error):
        return "out of memory"
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, EstimateError):
        return first
    return f"{type(error).__name__}: {first} (the traceback is in the log)"


def logged(error: Exception, logger: logging.Logger, doing: str) -> str:
    """The same line, and the traceback in the log unless the error was raised on purpose or is of memory.

    >>> logged(MemoryError(), logging.getLogger(), "drawing a preview")
    'out of memory'
    """
    if not isinstance(error, EstimateError) and not ran_out(error):
        logger.error("%s failed", doing, exc_info=error)
    return one_line(error)
