"""What a running job tells, how it is told to stop, and why a training ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from embedding_estimate.errors.out_of_memory import ran_out


@dataclass(frozen=True)
class Progress:
    """Where a job is."""

    phase: str  # "effort", "prepare", "weigh", "words", "train" or "measure"
    done: int  # plans, states recorded, learning steps of trials or of the training, or samples through the U-Net
    total: int
    loss: float | None = None  # 1 at the start of the first stretch
    explained: float | None = None  # on the select set, of the best vectors so far
    stretch: str = ""  # what is being trained; loss and explained of two stretches do not compare


OnProgress = Callable[[Progress], None]


class StopReason(str, Enum):
    """Why a training ended; the value is what users read, in files and in JSON too."""

    DONE = "done"
    EXACT = "exact"  # there was nothing to train
    EARLY = "early stop"
    INTERRUPTED = "interrupted"
    DIVERGED = "diverged"
    STUCK = "stuck"  # a line search found no lower point; inside the loop only
    NO_MEMORY = "out of memory"
    FAILED = "failed"
    SNAPSHOT = "snapshot"  # it has not ended

    def __str__(self) -> str:
        return self.value

    @classmethod
    def of(cls, error: Exception) -> StopReason:
        """Why what an error has ended was ended."""
        return cls.NO_MEMORY if ran_out(error) else cls.FAILED

    @property
    def by_error(self) -> bool:
        """Whether the same would end whatever is tried next."""
        return self in (StopReason.NO_MEMORY, StopReason.FAILED)


class Stopped(Exception):
    """The stop token was set. Caught inside the trainer, which decides what can be kept."""


class StopToken:
    """Asks one job to stop. Set from any thread; once dropped, a job's result stays dropped."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._dropped = threading.Event()
        self._closed = False
        self._lock = threading.RLock()  # a signal may ask while its own thread closes

    def stop(self, *, save: bool) -> None:
        """Does nothing once it is closed."""
        with self._lock:
            if self._closed:
                return
            if not save:
                self._dropped.set()
            self._stopped.set()

    def close(self) -> None:
        """At the end of a job: what was asked until now counts, and what is asked later comes too late."""
        with self._lock:
            self._closed = True

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def dropped(self) -> bool:
        return self._dropped.is_set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def check(self) -> None:
        """Raises `Stopped` once `stop` was called."""
        if self.stopped:
            raise Stopped
