"""The WebUI's queue, in which images and jobs take turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from embedding_estimate.hosts.webui import prompt_cache
from embedding_estimate.hosts.webui.replacing import replaced

POLL = 0.1  # seconds between two looks at a stop


@contextmanager
def turn(check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the WebUI's queue. `check` is called again and again while others have it; what it raises ends the wait.

    The WebUI's lock can be waited for, but not for a while only. So a thread stands in the queue instead of this one,
    and passes the turn on at once where nobody wants it any more.
    """
    from modules.call_queue import queue_lock

    ours, over = threading.Event(), threading.Event()

    def stand_in_the_queue() -> None:
        with queue_lock:
            ours.set()
            over.wait()

    waiting = threading.Thread(target=stand_in_the_queue, name="embedding-estimate-queue", daemon=True)
    waiting.start()
    try:
        while not ours.wait(POLL):
            check()
        yield
    finally:
        over.set()
        if ours.is_set():
            waiting.join()


@contextmanager
def queued(owner: Any, name: str) -> Iterator[None]:
    """To be used within a turn: another thread that calls an object's function stands in the queue first."""
    from modules.call_queue import queue_lock

    function, ours = getattr(owner, name), threading.get_ident()

    def in_turn(*arguments: Any, **named: Any) -> Any:
        if threading.get_ident() == ours:
            return function(*arguments, **named)
        with queue_lock:
            return function(*arguments, **named)

    with replaced(owner, name, in_turn):
        yield


def anybody_waits() -> bool:
    """Whether somebody stands in the WebUI's queue. An early WebUI's lock does not say; its page's tasks do."""
    from modules import progress
    from modules.call_queue import queue_lock

    return bool(getattr(queue_lock, "_pending_threads", progress.pending_tasks))


@contextmanager
def job_turn(check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A turn in which the WebUI notes that something is running.

    At its end prompts are encoded anew: a job has often written its embedding by then, and the next image may be
    waiting already.
    """
    from modules import shared

    with turn(check):
        shared.state.begin()
        shared.state.job, shared.state.job_count = "embedding estimate", 1
        try:
            yield
        finally:
            prompt_cache.forget()
            shared.state.end()
            shared.state.skipped = shared.state.interrupted = False
            if hasattr(shared.state, "stopping_generation"):  # since 1.10 what Interrupt sets first
                shared.state.stopping_generation = False
