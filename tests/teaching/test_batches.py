"""How many latents go through the U-Net together, worked by hand for the toy's shapes.

Its cross-attention has 4 channels of 8 bytes. So a latent of 16 cells takes 16 x 32 x 4 x 8 = 16,384 bytes to pass,
163,840 to pass back and 51,200 with checkpoints, and half of the free memory is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from elsewhere import DEVICE, pretended
from toy import ToyHost, ToyModel

from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.hosts.free_memory import free_memory
from embedding_estimate.model.host import Conditioning
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.batches import Together, contexts, keeping, passing, without_gradients
from embedding_estimate.teaching.probing import Prober
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

CELLS, FORWARD, KEPT, CHECKPOINTED = 16, 16_384, 163_840, 51_200
MOST_CELLS = 6 * CELLS
FULL = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")


def toy(free: int | None) -> ToyModel:
    model = ToyModel()
    model.free = free
    return model


@pytest.mark.parametrize(
    ("free", "batch", "latents"),
    [
        (None, 0, 4),
        (None, 9, 6),  # a picture's cells
        (2 * 20 * FORWARD, 3, 3),  # what is asked for
        (2 * FORWARD, 0, 1),
        (2 * FORWARD - 1, 0, 1),  # one at least
        (2 * 20 * FORWARD, 0, 16),  # a power of two
        (2 * 1000 * FORWARD, 0, 32),
    ],
)
def test_latents_that_are_passed_together(free: int | None, batch: int, latents: int) -> None:
    assert passing(toy(free), batch, CELLS, MOST_CELLS) == latents


@pytest.mark.parametrize(
    ("free", "batch", "together"),
    [(None, 0, 4), (None, 7, 7), (2 * 20 * 800, 3, 3), (2 * 5 * 800, 0, 5), (800, 0, 1), (2 * 1000 * 800, 0, 32)],
)
def test_contexts_that_are_read_together(free: int | None, batch: int, together: int) -> None:
    """Each keeps 100 numbers of 8 bytes here: the backward pass of an exponential needs what it returned."""
    numbers = torch.zeros(100, dtype=torch.float64, requires_grad=True)
    assert contexts(toy(free), batch, numbers.exp) == together


@pytest.mark.parametrize(
    ("free", "batch", "checkpointed", "together"),
    [
        (None, 0, False, Together(4, False)),
        (None, 9, False, Together(6, False)),
        (None, 9, True, Together(6, True)),
        (2 * 9 * KEPT, 0, False, Together(8, False)),
        (2 * 9 * KEPT, 0, True, Together(16, True)),
        (2 * KEPT - 1, 0, False, Together(2, True)),  # none fits whole, three fit with checkpoints
        (2 * CHECKPOINTED - 1, 0, False, Together(1, True)),
        (2 * 9 * KEPT, 5, False, Together(5, False)),
    ],
)
def test_latents_that_are_passed_back_together(
    free: int | None, batch: int, checkpointed: bool, together: Together
) -> None:
    assert keeping(toy(free), batch, CELLS, MOST_CELLS, checkpointed=checkpointed) == together


def test_large_latents_go_alone_and_with_checkpoints_unless_the_memory_is_known() -> None:
    assert keeping(toy(None), 0, 7 * CELLS, MOST_CELLS, checkpointed=False) == Together(1, True)
    assert keeping(toy(2 * 4 * 7 * KEPT), 0, 7 * CELLS, MOST_CELLS, checkpointed=False) == Together(4, False)


@pytest.mark.parametrize(("free", "batch", "told"), [(None, 0, 8), (None, 3, 6), (10**9, 3, 6), (10**9, 0, 0)])
def test_measuring_takes_twice_as_many(free: int | None, batch: int, told: int) -> None:
    assert without_gradients(toy(free), batch) == told


class Watched(ToyModel):
    """Keeps the sizes of its passes, and runs out of memory where more than `room` latents are to be passed back."""

    def __init__(self, free: int, room: int = 1000) -> None:
        super().__init__()
        self.free, self.room = free, room
        self.passed: list[int] = []
        self.passed_back: list[int] = []
        self.checkpoints = 0

    @contextmanager
    def checkpointed(self) -> Iterator[None]:
        self.checkpoints += 1
        yield

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        denoised = super().denoise(x, sigma, conditioning)
        (self.passed_back if denoised.requires_grad else self.passed).append(len(x))
        if denoised.requires_grad and len(x) > self.room:
            raise FULL
        return denoised


@pytest.mark.parametrize(("room", "tried"), [(1000, [16, 4]), (7, [16, 8, 4, 4, 4, 4, 4])])
def test_states_are_probed_together_and_halved_where_memory_runs_out(room: int, tried: list[int]) -> None:
    """Twenty states, of which sixteen fit by what the device tells."""
    model = Watched(2 * 17 * KEPT, room)
    teacher = Teacher(model, Task.of(Settings(text="red (circle:1.8)"), model))
    trajectory = Trajectory("Euler", "Karras", 4, 3.0)
    side = teacher.replaced(teacher.task.text, trajectory)
    states = teacher.record(side, trajectory, range(5), 0)
    prober = Prober(model, rows=1.0, batch=0, seed=0, checkpointed=False)
    prober([(side, states)], 100)
    assert model.passed_back == tried and prober.notes == [] and model.checkpoints == 0
    prober([(side, states)], 100)
    assert max(model.passed_back[len(tried) :]) == (16 if room > 16 else 4)  # what failed is not tried again


def test_an_estimate_takes_what_fits(toy_host: ToyHost) -> None:
    """Both sides of the six seeds of a trajectory in one pass, and all states to train on or to choose on; few
    go alone, and with checkpoints."""
    values: dict[str, Any] = {"text": "(red:1.5) circle", "name": "madeup", "steps": 4, "measure": "Nothing"}
    few, many = Watched(2 * FORWARD), Watched(10**9)
    results = []
    for toy_host.model in (few, many):
        results.append(estimate(Settings(**values, templates="{}", learning_steps=5), toy_host))
    assert max(few.passed) == 2 and max(few.passed_back) == 1 and few.checkpoints == 2
    assert many.passed[:4] == [12] * 4 and max(many.passed) == 16
    assert many.passed_back == [32, 16] and many.checkpoints == 0
    assert results[0].passes == results[1].passes


def test_a_device_that_is_no_cuda_tells_nothing() -> None:
    assert free_memory(torch.device("cpu")) is None
    with pretended():
        assert free_memory(DEVICE) is None


def test_what_torch_has_set_aside_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 600)
    assert free_memory(torch.device("cuda", 0)) == 1100
