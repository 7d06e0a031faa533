"""Progress bars, and the signals that ask the program to end."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from embedding_estimate.jobs.progress_bars import ProgressBars

if TYPE_CHECKING:
    from embedding_estimate.progress import StopToken

INTERRUPTED = 128 + signal.SIGINT  # exit code
# of a service manager and of a terminal that closes, which Windows knows in part
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Bars(ProgressBars):
    """Bars for a terminal or a log, on stderr."""

    def opened(self, label: str, total: int) -> Any:
        from tqdm import tqdm

        return tqdm(
            desc=label,
            total=total,
            bar_format="{desc:<20}{percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
            mininterval=0.1 if sys.stderr.isatty() else 10,  # seconds; a log is no terminal
        )


@contextmanager
def ending_in_order() -> Iterator[None]:
    """While active, SIGTERM and SIGHUP end the program as Ctrl-C does, so that everything is put back or saved. Only
    the first signal counts: repeated ones are not meant to end it faster."""
    with _handled(dict.fromkeys(ENDING, _end)):
        yield


@contextmanager
def _handled(handlers: Mapping[int, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """While active, signals go to these handlers. A signal that `nohup` has ignored stays ignored."""
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if before[number] != signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    _leave_terminal(number)
    raise KeyboardInterrupt


@contextmanager
def interruptible(stop: StopToken) -> Iterator[None]:
    """While active, the first Ctrl-C stops and saves, the second stops and discards, and the third does what it did
    before. SIGTERM and SIGHUP stop and save, however often they come."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not stop.stopped:
            _say("stopping; the best result so far is kept. Press Ctrl-C again to discard it")
            stop.stop(save=True)
        elif not stop.dropped:
            _say("stopping; nothing is kept")
            stop.stop(save=False)
        else:
            signal.default_int_handler(number, frame)

    def end(number: int, frame: FrameType | None) -> None:
        _leave_terminal(number)
        if not stop.stopped:
            _say("stopping; the best result so far is kept")
            stop.stop(save=True)

    with _handled({signal.SIGINT: interrupt, **dict.fromkeys(ENDING, end)}):
        yield


def _leave_terminal(number: int) -> None:
    """After a hang-up, sends further output nowhere: nobody can read it, and printing would raise errors."""
    if number != getattr(signal, "SIGHUP", None):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        if stat.S_ISCHR(os.fstat(output).st_mode):  # a terminal that has hung up no longer says that it is one
            os.dup2(nowhere, output)
    os.close(nowhere)


def _say(text: str) -> None:
    """Writes to stderr without Python's buffer, which the program may be using when the signal comes."""
    with suppress(OSError):  # its reader may have left
        os.write(2, f"\n{text}\n".encode())
