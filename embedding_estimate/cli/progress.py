"""Progress bars and Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from embedding_estimate.wording import PHASES

if TYPE_CHECKING:
    from embedding_estimate.progress import Progress, StopToken

INTERRUPTED = 128 + signal.SIGINT  # exit code


class Bars:
    """One bar for each phase of a job, on stderr."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._phase = ""
        self._bar: Any = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __call__(self, progress: Progress) -> None:
        if progress.phase != self._phase:
            self.close()
            self._phase = progress.phase
            self._bar = self._opened(progress)
        if progress.loss is not None and progress.explained is not None:
            figures = f"loss {progress.loss:.3f}, explained {progress.explained:.3f}"
            self._bar.set_postfix_str(figures, refresh=False)
        self._bar.total = progress.total
        self._bar.update(progress.done - self._bar.n)

    def _opened(self, progress: Progress) -> Any:
        from tqdm import tqdm

        label = f"{self.prefix}{PHASES[progress.phase]}"
        return tqdm(
            desc=label,
            total=progress.total,
            bar_format="{desc:<20}{percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
            mininterval=0.1 if sys.stderr.isatty() else 10,  # seconds; a log is no terminal
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def interruptible() -> Iterator[StopToken]:
    """Ctrl-C stops and saves, again: stops and drops, once more: whatever it did before."""
    from embedding_estimate.progress import StopToken

    stop = StopToken()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not stop.stopped:
            _say("stopping; what there is will be saved. Ctrl-C again drops it")
            stop.stop(save=True)
        elif not stop.dropped:
            _say("stopping; nothing will be saved")
            stop.stop(save=False)
        else:
            signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _say(text: str) -> None:
    """To stderr past Python's buffer, which the program may be writing to when the signal comes."""
    os.write(2, f"\n{text}\n".encode())
