"""Many jobs in one process leave no threads, files or tensors behind."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy import ToyHost

from embedding_estimate.errors import Interrupted, PromptError
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("brief")]


def held() -> dict[str, int]:
    """What a process has open."""
    gc.collect()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    files = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    return {"tensors": tensors, "files": files, "threads": threading.active_count(), "modules": len(sys.modules)}


def one(host: ToyHost, number: int) -> None:
    """A job of some part; every third is dropped, every fifth is refused."""
    parts = ("Attention", "U-Net", "Transformer", "Attention + U-Net")
    stop = StopToken()
    values = {"text": "red (circle:1.8)", "name": "it", "tokens": 2, "steps": 4, "learning_steps": 8}
    if number % 5 == 4:
        with pytest.raises(PromptError):
            estimate(Settings(**values | {"text": "()"}), host)
    elif number % 3 == 2:
        with pytest.raises(Interrupted):
            estimate(Settings(**values), host, Listener(on_trained=lambda embedding: stop.stop(save=False)), stop=stop)
    else:
        estimate(Settings(**values | {"part": parts[number % 4]}), host)


def test_a_process_holds_as_much_after_many_jobs_as_after_some(times: Callable[[int, int], int]) -> None:
    host = ToyHost()
    for number in range(15):  # what is made once and kept is there by then
        one(host, number)
    before = held()
    for number in range(15, times(30, 200)):
        one(host, number)
    assert held() == before
