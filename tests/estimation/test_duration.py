"""How long an estimate will take is foretold, on a clock that only the model advances."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from suites import quick_first
from torch import Tensor
from toy import ToyHost, ToyModel

from embedding_estimate.estimation.dry_run import DryRun, dry_run
from embedding_estimate.estimation.duration import LONG, Duration, Speed, timed
from embedding_estimate.estimation.trainer import Estimate, estimate
from embedding_estimate.model.host import Conditioning, Vectors
from embedding_estimate.model.meter import Passes
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.teacher import Task, Teacher

PASS, BACK, READ = 0.01, 0.02, 0.004  # seconds of a latent through the U-Net, of one back, and of a prompt to train in
CPU = torch.device("cpu")


class Clock:
    """`time.perf_counter` in a world where nothing else takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SlowModel(ToyModel):
    """Takes its time, by the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.pass_, self.back, self.read = PASS, BACK, READ

    def denoise(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        denoised = super().denoise(x, sigma, conditioning)
        self.clock.now += len(x) * self.pass_
        if denoised.requires_grad:
            denoised.register_hook(lambda gradient: self._passed_back(len(x)))
        return denoised

    def _passed_back(self, latents: int) -> None:
        self.clock.now += latents * self.back

    def _encode_vectors(self, vectors: Vectors, template: str) -> Conditioning:
        self.clock.now += self.read
        return super()._encode_vectors(vectors, template)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> ToyHost:
    clock, host = Clock(), ToyHost()
    monkeypatch.setattr(time, "perf_counter", clock)
    host.model = SlowModel(clock)
    return host


def settings(**values: Any) -> Settings:
    return Settings(**{"text": "(red:1.5) circle", "name": "madeup", "steps": 4, "measure": "Nothing", **values})


def foretold_and_taken(host: ToyHost, settings: Settings) -> tuple[DryRun, Estimate]:
    return dry_run(settings, host), estimate(settings, host)


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    quick_first(
        3,
        [
            {"learning_steps": 30},
            {"part": "U-Net", "learning_steps": 20},
            {"part": "U-Net", "learning_steps": 20, "optimizer": "LBFGS"},
            {"part": "Attention + U-Net", "learning_steps": 24},
            {"part": "Transformer", "learning_steps": 20},
            {"use": "Alone", "learning_steps": 40},
            {"prompt_type": "Negative Prompt", "other_prompt": "dull\nbig", "learning_steps": 20},
            {"text": "(red:1.5) circle (blue:0.6) star", "words": "One per weight", "tokens": 3, "learning_steps": 20},
        ],
    ),
)
def test_the_seconds_are_foretold_within_a_third(host: ToyHost, values: dict[str, Any]) -> None:
    plan, result = foretold_and_taken(host, settings(**values))
    assert plan.duration.prepare == pytest.approx(result.seconds_prepare, rel=1 / 3)
    assert plan.duration.train == pytest.approx(result.seconds_train, rel=1 / 3)
    assert plan.duration.measure == 0


@pytest.mark.usefixtures("brief")
def test_so_are_those_of_figures_and_images(host: ToyHost) -> None:
    """In this world nothing but passes and prompts takes time."""
    plan = dry_run(settings(part="Transformer", learning_steps=20, measure="Quick"), host)
    between = time.perf_counter()
    result = estimate(settings(part="Transformer", learning_steps=20, measure="Quick"), host)
    measuring = time.perf_counter() - between - result.seconds_prepare - result.seconds_train
    assert plan.duration.measure == pytest.approx(measuring, rel=1 / 3)
    assert plan.duration.measure >= result.passes.measure.forwards * PASS


def test_what_is_counted_by_hand(host: ToyHost) -> None:
    """One of three contexts is read in each of ten steps and of eight samples for coordinates, all in a check."""
    plan = dry_run(settings(part="Transformer", learning_steps=10), host)
    assert plan.prepare.most == plan.train.most == Passes()
    assert plan.duration.train == pytest.approx((10 + 8) * READ + 3 * READ)


@pytest.mark.parametrize("together", [1, 4])
def test_the_speed_is_that_of_one_latent(host: ToyHost, together: int) -> None:
    teacher = Teacher(host.model, Task("red", False, ("",), 32, 32))
    assert isinstance(host.model, SlowModel)
    speed = Speed.of(host.model, teacher, together)
    assert [speed.forward, speed.backward] == pytest.approx([PASS, BACK])
    assert speed.seconds(Passes(10, 3)) == pytest.approx(10 * PASS + 3 * BACK)


def test_a_long_pass_is_timed_once_alone_and_once_back(host: ToyHost) -> None:
    assert isinstance(host.model, SlowModel)
    host.model.pass_ = LONG + 0.1
    Speed.of(host.model, Teacher(host.model, Task("red", False, ("",), 32, 32)), 4)
    assert host.model.denoised == 1 + 4


def test_of_short_calls_the_first_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    takes = iter([0.3, 0.01, 0.03])

    def call() -> None:
        clock.now += next(takes)

    assert timed(call, CPU) == pytest.approx(0.02)


def test_the_stages_add_up() -> None:
    both = Duration(1, 2, 3) + Duration(0.5, 0.25)
    assert both == Duration(1.5, 2.25, 3) and both.total == 6.75
