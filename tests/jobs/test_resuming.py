"""Jobs that are cut off at any moment, and go on to the same bytes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from shaking import shaken
from toy import ToyHost, ToyModel

from embedding_estimate.estimation.trainer import Estimate
from embedding_estimate.jobs.pipeline import Pipeline
from embedding_estimate.model.host import Vectors
from embedding_estimate.progress import Progress, StopToken
from embedding_estimate.settings import FEW_WORDS, Settings
from embedding_estimate.storage import resuming
from embedding_estimate.storage.resuming import settings_of
from embedding_estimate.storage.snapshots import Snapshots
from embedding_estimate.training import few_words, name_weight


class Killed(BaseException):
    """Nothing in the program catches it."""


class Machine:
    """A toy host whose model takes a second for each call, and which is switched off at a certain call."""

    def __init__(self, folder: Path, **settings: Any):
        self.folder = folder
        self.settings = Settings(
            **{"text": "red (circle:1.8)", "name": "it", "steps": 4, "measure": "Nothing", "tokens": 2, **settings}
        )
        self.calls = 0
        self.kill_at: float = float("inf")
        self.first_state = 0  # the call behind which there was one
        self.notes: list[str] = []
        self.progress: list[Progress] = []
        self.stop = StopToken()

    @property
    def files(self) -> dict[str, bytes]:
        """What is in the folder of embeddings; there are several files where there are several words."""
        return {path.name: path.read_bytes() for path in (self.folder / "embeddings").glob("*")}

    @property
    def state(self) -> Path:
        return self.folder / "embeddings-steps" / "it.resume.safetensors"

    def call(self) -> None:
        self.calls += 1
        if self.state.exists() and not self.first_state:
            self.first_state = self.calls
        if self.calls == self.kill_at:
            raise Killed

    def run(self, kill_at: float = float("inf")) -> Estimate:
        """Estimates, or goes on where there is a state."""
        self.calls, self.kill_at = 0, kill_at
        host = ToyHost()
        host.model = Clocked(self)
        found = resuming.cut_off(self.folder / "embeddings")
        state = found[0].read() if found else None
        settings = settings_of(state) if state else self.settings
        pipeline = Pipeline(
            settings=settings,
            folder=self.folder / "embeddings",
            stop=self.stop,
            snapshots=Snapshots(settings, self.folder / "embeddings", self.stop, on_note=self.notes.append),
            on_note=self.notes.append,
            on_notes=lambda lines: None,
            on_progress=self.progress.append,
            on_saved=lambda embedding, paths: None,
            draws_report=False,
            clock=lambda: float(self.calls),
        )
        return pipeline.run(host, state=state).estimate


class Clocked(ToyModel):
    def __init__(self, machine: Machine):
        super().__init__()
        self.machine = machine

    def _encode_vectors(self, vectors: Vectors, template: str) -> Any:
        self.machine.call()
        return super()._encode_vectors(vectors, template)


def outcome(result: Estimate) -> str:
    """All of a result that may not depend on interruptions."""
    return json.dumps([result.losses, result.checks, result.stretches, result.notes, result.words_tried, result.steps])


PARTS: dict[str, dict[str, Any]] = {
    "Attention by LBFGS": {"learning_steps": 40},
    "U-Net by Adam": {"part": "U-Net", "learning_steps": 80, "scheduler": "cosine", "early_stop": 2, "templates": "{}"},
    "Transformer": {"part": "Transformer", "learning_steps": 60, "scheduler": "one-cycle", "optimizer": "SGD"},
    "U-Net by LBFGS": {"part": "U-Net", "learning_steps": 12, "optimizer": "LBFGS"},
    "two parts": {"part": "Attention + U-Net", "learning_steps": 40, "use": "Alone"},
    "a weight and a second part": {"part": "Attention + U-Net", "learning_steps": 24, "typed_weight": 0.0},
    "words and a second part": {
        "part": "Attention + U-Net", "learning_steps": 24, "words": FEW_WORDS, "tokens": 3,
        "text": "(red:1.5) circle cat (star:0.6)",
    },
    "one word for each weight": {
        "learning_steps": 30, "words": "One per weight", "tokens": 3, "text": "(red:1.5) circle cat (star:0.6)",
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_weight, "GRID", (0.9, 1.2))
    monkeypatch.setattr(name_weight, "TRIAL_STEPS", 3)
    monkeypatch.setattr(few_words, "SHARE", 1 / 8)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_resumed_job_ends_with_the_same_bytes(part: str, kills: int, tmp_path: Path) -> None:
    whole = Machine(tmp_path / "whole", **PARTS[part])
    expected = outcome(whole.run())
    assert 0 < whole.first_state < whole.calls and not whole.state.parent.exists()
    draws = random.Random(shaken(0))
    for number in range(kills):
        machine = Machine(tmp_path / str(number), **PARTS[part])
        with pytest.raises(Killed):
            machine.run(kill_at=draws.randrange(whole.first_state, whole.calls) + 1)
        assert machine.state.exists() and not machine.files
        assert outcome(machine.run()) == expected
        assert machine.files == whole.files
        assert not machine.state.parent.exists() and machine.notes == []
