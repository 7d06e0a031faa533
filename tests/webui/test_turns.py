"""Turns in the WebUI's queue, against a stand-in of its modules."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

from embedding_estimate.hosts.webui import turns

pytestmark = pytest.mark.usefixtures("shared")


def test_it_shows_who_waits_while_a_job_has_the_turn() -> None:
    from modules.call_queue import queue_lock

    assert not turns.anybody_waits()
    with turns.turn():
        assert not turns.anybody_waits()
        somebody = threading.Thread(target=queue_lock.acquire)
        somebody.start()
        until = time.monotonic() + 60
        while not turns.anybody_waits():
            assert time.monotonic() < until
    somebody.join(60)
    assert not turns.anybody_waits()
    queue_lock.release()


def test_an_early_webui_knows_it_by_the_tasks_of_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from modules import call_queue, progress

    lock: Any = threading.Lock()
    monkeypatch.setattr(call_queue, "queue_lock", lock)
    assert not turns.anybody_waits()
    monkeypatch.setitem(progress.pending_tasks, "task(1)", 0.0)
    assert turns.anybody_waits()
