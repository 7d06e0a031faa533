from __future__ import annotations

import threading
from collections import deque


class Queue:
    """A lock that shows who waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending_threads: deque[object] = deque()

    def acquire(self, timeout: float = -1) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        place = object()
        self._pending_threads.append(place)
        try:
            return self._lock.acquire(timeout=timeout)
        finally:
            self._pending_threads.remove(place)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


queue_lock = Queue()
