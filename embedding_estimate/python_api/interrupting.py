"""Ctrl+C while a job runs in the caller's own thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from embedding_estimate.errors import Interrupted
from embedding_estimate.progress import StopToken


@contextmanager
def stopping_on_interrupt(stop: StopToken) -> Iterator[None]:
    """Within, the first Ctrl+C stops the job and keeps what it has reached, and the second drops it.

    What was borrowed is given back by the job itself before KeyboardInterrupt is raised: after the second Ctrl+C, or
    after the first where there is nothing to keep. Only a third one raises it at once. A handler that the program has
    set stays in charge, and outside the main thread there is none.
    """
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    presses = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses > 2:
            signal.default_int_handler(number, frame)
        line = "the best so far is returned. Ctrl+C again drops it" if presses == 1 else "nothing is kept"
        with suppress(OSError):  # past Python's buffer, which the program may be writing to at this moment
            os.write(2, f"\nstopping; {line}\n".encode())
        stop.stop(save=presses == 1)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Interrupted:
        if presses:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
