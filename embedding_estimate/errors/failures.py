"""Messages for an exception that ends a job or a part of it: one line for the user, a traceback for the log."""

from __future__ import annotations

import logging

from embedding_estimate.errors import EstimateError
from embedding_estimate.errors.out_of_memory import ran_out


def one_line(error: Exception) -> str:
    """What went wrong, as one line for the user."""
    if ran_out(error):
        return "out of memory"
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, EstimateError):
        return first
    return f"{type(error).__name__}: {first} (the traceback is in the log)"


def logged(error: Exception, logger: logging.Logger, doing: str) -> str:
    """Logs the error's traceback and returns `one_line` of it.

    Errors that were raised on purpose, and errors about memory, are not logged.

    >>> logged(MemoryError(), logging.getLogger(), "drawing a preview")
    'out of memory'
    """
    if not isinstance(error, EstimateError) and not ran_out(error):
        logger.error("%s failed", doing, exc_info=error)
    return one_line(error)
