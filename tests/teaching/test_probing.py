"""Where memory runs out, cheaper ways are taken, and said."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from shaking import shaken
from toy import ToyModel

from embedding_estimate.model.host import Conditioning
from embedding_estimate.settings import Settings
from embedding_estimate.teaching import probing
from embedding_estimate.teaching.probing import Prober
from embedding_estimate.teaching.sides import Side, States, error
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

TRAJECTORY = Trajectory("Euler", "Karras", 6, 3.0)
FULL = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")


class Narrow(ToyModel):
    """Runs out of memory where it is asked for a gradient, or for anything at all, so many times."""

    def __init__(self, gradients: int = 0, passes: int = 0) -> None:
        super().__init__()
        self.gradients, self.passes = gradients, passes
        self.batches: list[int] = []
        self.entered = 0

    @contextmanager
    def checkpointed(self) -> Iterator[None]:
        self.entered += 1
        yield

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        self.batches.append(len(x))
        denoised = super().denoise(x, sigma, conditioning)
        if denoised.requires_grad and self.gradients:
            self.gradients -= 1
            raise FULL
        if self.passes and not self.gradients:
            self.passes -= 1
            raise FULL
        return denoised


def prepared(model: ToyModel) -> tuple[Side, States]:
    teacher = Teacher(model, Task.of(Settings(text="red (circle:1.8)"), model))
    side = teacher.replaced(teacher.task.text, TRAJECTORY)
    return side, teacher.record(side, TRAJECTORY, range(20), 8)


@pytest.mark.parametrize(
    ("failures", "way"),
    [(0, None), (1, "one state at a time and with checkpoints"), (2, "forward differences")],
)
def test_the_best_way_there_is_memory_for(failures: int, way: str | None) -> None:
    model = Narrow()
    side, states = prepared(model)
    model.gradients = failures
    prober = Prober(model, rows=1.0, batch=8, seed=0, checkpointed=False)
    probes = prober([(side, states)], 10**6)
    assert len(prober.notes) == failures and (way is None or way in prober.notes[-1])
    assert model.entered == (failures > 0)
    conditioning = side.stages[0].parts[0][0]
    assert float(probes.error(conditioning)) < 1e-20
    generator = torch.Generator().manual_seed(shaken(0))
    foreseen = true = 0.0
    for _ in range(12):
        noise = torch.randn(conditioning.context.shape, generator=generator, dtype=torch.float64)
        there = Conditioning(conditioning.context + 0.1 * noise)
        foreseen += float(probes.error(there))
        true += error(Side(model, [type(side.stages[0])(0, ((there, 1.0),))]), states, len(states))
    off = 1.2 if failures < 2 else 3  # one number for a whole layer knows of no direction in it
    assert true / off < foreseen < true * off
    prober([(side, states)], 100)
    assert len(prober.notes) == failures  # what failed is not tried again


def test_what_the_host_can_do_without_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model, held = Narrow(), [True, False]
    side, states = prepared(model)
    model.gradients = 2
    monkeypatch.setattr(model, "release", lambda **_: held.pop(0))
    prober = Prober(model, rows=1.0, batch=8, seed=0, checkpointed=False)
    prober([(side, states)], 10)
    assert held == [] and len(prober.notes) == 1 and "one state at a time" in prober.notes[0]


def test_equal_weights_when_nothing_else_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Narrow()
    side, states = prepared(model)
    model.gradients, model.passes = 2, 1
    prober = Prober(model, rows=1.0, batch=8, seed=0, checkpointed=False)
    probes = prober([(side, states)], 10**6)
    assert "count the same" in prober.notes[-1] and len(prober.notes) == 3
    assert float(probes.error(side.stages[0].parts[0][0])) < 1e-20


def test_other_failures_are_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Narrow()
    side, states = prepared(model)

    def broken(*args: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(model, "denoise", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        Prober(model, rows=1.0, batch=8, seed=0, checkpointed=False)([(side, states)], 10)


def test_less_memory_keeps_fewer_rows() -> None:
    model = Narrow()
    side, states = prepared(model)
    whole, half = (
        Prober(model, rows=share, batch=8, seed=0, checkpointed=False)([(side, states)], 1000) for share in (1.0, 0.5)
    )
    assert len(half.aim) < 0.6 * len(whole.aim)


def test_large_states_go_through_alone_and_with_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Narrow()
    side, states = prepared(model)
    model.batches.clear()
    monkeypatch.setattr(probing, "TOGETHER", 3 * 16)
    Prober(model, rows=1.0, batch=8, seed=0, checkpointed=False)([(side, states)], 100)
    assert max(model.batches) == 3 and model.entered == 0
    monkeypatch.setattr(probing, "TOGETHER", 15)
    Prober(model, rows=1.0, batch=8, seed=0, checkpointed=False)([(side, states)], 100)
    assert model.batches[-1] == 1 and model.entered == 1
