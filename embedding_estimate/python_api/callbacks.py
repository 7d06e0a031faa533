"""The caller's own functions, called while a job runs."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from embedding_estimate.errors import Interrupted
from embedding_estimate.progress import StopToken


class Callbacks:
    """Lets an error of a callback end the job, and raises it where the context ends.

    Without this the job would take it for an error of the model, keep what it has and go on.
    """

    def __init__(self, stop: StopToken):
        self._stop = stop
        self._error: Exception | None = None

    def guarded(self, *callbacks: Callable[..., None] | None) -> Callable[..., None]:
        """One function that calls those that are given with its own arguments."""

        def call(*arguments: Any) -> None:
            try:
                for callback in callbacks:
                    if callback is not None:
                        callback(*arguments)
            except Exception as error:
                self._error = self._error or error
                self._stop.stop(save=False)

        return call

    def __enter__(self) -> Callbacks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._error is not None and isinstance(error, Interrupted):
            raise self._error from None
