"""Jobs that are cut off at any moment, and go on to the same bytes."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from jobs.test_jobs import ended
from shaking import shaken
from suites import quick_first
from toy import ToyHost, ToyModel

from embedding_estimate.errors import Busy, EmbeddingError, EstimateError, Interrupted, NameTaken
from embedding_estimate.estimation.trainer import Estimate
from embedding_estimate.jobs import resuming as offers
from embedding_estimate.jobs.jobs import Jobs
from embedding_estimate.jobs.pipeline import Pipeline
from embedding_estimate.model.host import Vectors
from embedding_estimate.optimizers import FULL, OPTIMIZERS, SCHEDULERS
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
        self.on_call: Callable[[], None] = lambda: None
        self.first_state = 0  # the call behind which there was one
        self.notes: list[str] = []
        self.progress: list[Progress] = []
        self.stop = StopToken()

    @property
    def files(self) -> dict[str, bytes]:
        """What is in the folder of embeddings; there are several files where there are several words."""
        return {path.name: path.read_bytes() for path in (self.folder / "embeddings").glob("*.safetensors")}

    @property
    def state(self) -> Path:
        return self.folder / "embeddings-steps" / f"{self.settings.name}.resume.safetensors"

    def call(self) -> None:
        self.calls += 1
        if self.state.exists() and not self.first_state:
            self.first_state = self.calls
        self.on_call()
        if self.calls == self.kill_at:
            raise Killed

    def run(self, kill_at: float = float("inf")) -> Estimate:
        """Estimates, or goes on where there is a state."""
        self.calls, self.kill_at = 0, kill_at
        host = ToyHost()
        host.model = Clocked(self)
        found = {one.name: one for one in resuming.cut_off(self.folder / "embeddings")}
        state = found[self.settings.name].read() if self.settings.name in found else None
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
    "Attention in a few contexts, then in all": {
        "learning_steps": 50, "templates": "\n".join(["{}", *("a " * number + "{} star" for number in range(31))]),
    },
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


QUICK = ("Attention by LBFGS", "U-Net by Adam")


def parts_and_kills() -> list[Any]:
    every = [pytest.param(part, 20, marks=pytest.mark.slow) for part in PARTS]
    return [*((part, 1) for part in QUICK), *every]


@pytest.mark.parametrize(("part", "kills"), parts_and_kills())
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


STEPS = ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir"))  # that writing and removing consist of
SHORT: dict[str, Any] = {"part": "Transformer", "learning_steps": 60}


@pytest.mark.slow
def test_a_job_that_is_cut_off_while_a_state_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each call of the file system in turn; in the end with the same bytes, whatever there is to go on from."""
    whole = Machine(tmp_path / "whole", **SHORT)
    whole.run()
    at, resumed = 0, 0
    while True:
        machine, taken = Machine(tmp_path / str(at), **SHORT), iter(range(1000))

        def killing(real: Callable[..., Any], at: int = at, taken: Any = taken) -> Callable[..., Any]:
            def step(*arguments: Any, **options: Any) -> Any:
                if next(taken) == at:
                    raise Killed
                return real(*arguments, **options)

            return step

        with monkeypatch.context() as patched, suppress(Killed):
            for owner, name in STEPS:
                patched.setattr(owner, name, killing(getattr(owner, name)))
            machine.run()
            break
        if not machine.files:
            resumed += machine.state.exists()
            machine.run()
        assert machine.files == whole.files
        at += 1
    assert resumed > 5


def cut_off(folder: Path, **settings: Any) -> Machine:
    """A job that was killed a few calls behind its first state."""
    machine = Machine(folder, **{**SHORT, **settings})

    def kill() -> None:
        if machine.first_state and machine.calls == machine.first_state + 8:
            raise Killed

    machine.on_call = kill
    with pytest.raises(Killed):
        machine.run()
    machine.on_call = lambda: None
    return machine


def test_it_is_cut_off_again_and_again(tmp_path: Path) -> None:
    whole = Machine(tmp_path / "whole", **SHORT)
    expected = outcome(whole.run())
    machine, steps = cut_off(tmp_path / "cut"), [0]
    while not machine.files:
        steps += [one.step for one in resuming.cut_off(machine.folder / "embeddings")]
        with suppress(Killed):
            result = machine.run(kill_at=45)
    assert len(steps) > 3 and steps == sorted(set(steps))
    assert outcome(result) == expected and machine.files == whole.files


def test_seconds_are_those_of_all_its_processes(tmp_path: Path) -> None:
    machine = cut_off(tmp_path)
    state = resuming.find(tmp_path / "embeddings", "it").read()
    result = machine.run()
    assert result.seconds_train > state["training"]["seconds"] > 0
    assert result.seconds_prepare + result.seconds_train > state["seconds"] > state["training"]["seconds"]


def test_an_interrupt_that_saves_removes_the_state(tmp_path: Path) -> None:
    """What is saved is a result: `initial_prompt` goes on from it, for those who want more."""
    machine = cut_off(tmp_path)
    machine.on_call = lambda: machine.stop.stop(save=True) if machine.calls == 50 else None
    result = machine.run()
    assert result.stopped == "interrupted" and result.steps < SHORT["learning_steps"]
    assert list(machine.files) == ["it.safetensors"] and not machine.state.exists()


def test_an_interrupt_before_it_goes_on_saves_what_it_had_reached(tmp_path: Path) -> None:
    whole = cut_off(tmp_path / "at once", part="Attention")
    state = resuming.find(whole.folder / "embeddings", "it").read()
    whole.on_call = lambda: whole.stop.stop(save=True) if whole.calls == 3 else None
    result = whole.run()
    assert result.stopped == "interrupted" and result.steps == state["step"]
    assert torch.equal(result.embedding.vectors["clip_l"], state["training"]["best"]["clip_l"].float())
    assert not whole.state.exists()


def test_a_drop_removes_the_state(tmp_path: Path) -> None:
    machine = cut_off(tmp_path)
    machine.on_call = lambda: machine.stop.stop(save=False)
    with pytest.raises(Interrupted):
        machine.run()
    assert not machine.files and not machine.state.parent.exists()


def test_snapshots_of_before_stay(tmp_path: Path) -> None:
    machine = cut_off(tmp_path, save_every=5)
    (folder,) = (path for path in machine.state.parent.iterdir() if path.is_dir())
    first = [path.name for path in folder.iterdir()]
    machine.run()
    assert {path.name for path in folder.iterdir()} == {f"it-{step:06d}.safetensors" for step in range(5, 61, 5)}
    assert 0 < len(first) < 12 and list(machine.state.parent.iterdir()) == [folder]


def test_an_error_before_it_goes_on_leaves_the_state(tmp_path: Path) -> None:
    machine = cut_off(tmp_path)

    def fail() -> None:
        raise RuntimeError("no device")

    machine.on_call = fail
    with pytest.raises(RuntimeError, match="no device"):
        machine.run()
    assert machine.state.exists() and not machine.files


def test_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = cut_off(tmp_path)
    monkeypatch.setattr(toy, "INFO", replace(toy.INFO, hash="ffff", clip_skip=2))
    with pytest.raises(EstimateError) as caught:
        machine.run()
    assert str(caught.value) == (
        "it cannot be resumed: the model was 'toy 0123456789' when it began, and is 'toy ffff' now; "
        "go back to that, or discard it and estimate again"
    )
    assert machine.state.exists()


def test_other_networks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = cut_off(tmp_path)
    monkeypatch.setattr(toy, "INFO", replace(toy.INFO, networks=("<lora:a:1>",)))
    with pytest.raises(EstimateError, match="the extra networks was '' when it began, and is '<lora:a:1>' now"):
        machine.run()


def test_an_embedding_in_the_prompt_that_has_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = cut_off(tmp_path)
    vectors = ToyModel.token_vectors
    monkeypatch.setattr(
        ToyModel, "token_vectors", lambda self, text: {key: 2 * v for key, v in vectors(self, text).items()}
    )
    with pytest.raises(EstimateError, match="the prompt's tokens have other vectors than then, so an embedding in it"):
        machine.run()
    assert machine.state.exists()


PAIRS = [
    (optimizer, scheduler)
    for optimizer, row in sorted(OPTIMIZERS.items())
    for scheduler in sorted(SCHEDULERS)
    if row.package == "torch" and (scheduler == "constant" or optimizer not in FULL)
]


@pytest.mark.parametrize(
    ("optimizer", "scheduler"), quick_first(2, [("Adam", "constant"), ("LBFGS", "constant"), *PAIRS])
)
def test_each_optimizer_and_scheduler_goes_on(optimizer: str, scheduler: str, tmp_path: Path) -> None:
    whole = Machine(tmp_path / "whole", **SHORT, optimizer=optimizer, scheduler=scheduler)
    expected = outcome(whole.run())
    machine = cut_off(tmp_path / "cut", optimizer=optimizer, scheduler=scheduler)
    assert outcome(machine.run()) == expected and machine.files == whole.files


# the tab's and the API's side


class Place:
    """Jobs in the folder of a machine."""

    def __init__(self, folder: Path):
        self.jobs = Jobs(lambda settings: ToyHost(), lambda: folder / "embeddings", lambda: folder / "reports")

    def names(self) -> list[str]:
        return [one.name for one in offers.cut_off(self.jobs)]


def test_a_job_goes_on_in_another_process(tmp_path: Path) -> None:
    whole = Machine(tmp_path / "whole", **SHORT)
    whole.run()
    machine = cut_off(tmp_path / "cut")
    place = Place(machine.folder)
    assert place.names() == ["it"]
    job = offers.resume(place.jobs, "it")
    ended(job)
    assert (job.state, job.problems) == ("done", [])
    assert machine.files == whole.files and place.names() == []
    with pytest.raises(EmbeddingError, match="'it': no estimate of this name was cut off"):
        offers.resume(place.jobs, "it")


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    machine = cut_off(tmp_path)
    place = Place(tmp_path)
    offers.discard(place.jobs, "it")
    assert place.names() == [] and not machine.state.parent.exists()


def test_what_runs_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(tmp_path)
    place, go = Place(tmp_path), threading.Event()
    monkeypatch.setattr(ToyHost, "show", lambda self, phase, done, total: not go.wait(60))
    job = offers.resume(place.jobs, "it")
    assert place.names() == []
    with pytest.raises(Busy, match="it is being estimated: wait until it is done, or interrupt it"):
        offers.discard(place.jobs, "it")
    with pytest.raises(Busy):
        offers.resume(place.jobs, "it")
    go.set()
    ended(job)
    assert job.state == "done"


def test_one_that_cannot_go_on_is_offered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(tmp_path)
    monkeypatch.setattr(toy, "INFO", replace(toy.INFO, emphasis="Original"))
    place = Place(tmp_path)
    job = offers.resume(place.jobs, "it")
    ended(job)
    assert job.state == "failed" and place.names() == ["it"]
    assert job.problems == [
        "it cannot be resumed: the emphasis mode was 'No norm' when it began, and is 'Original' now; "
        "go back to that, or discard it and estimate again"
    ]


def test_a_name_that_was_taken_since_is_refused_and_the_state_stays(tmp_path: Path) -> None:
    machine = cut_off(tmp_path)
    (tmp_path / "embeddings").mkdir(exist_ok=True)
    (tmp_path / "embeddings" / "it.safetensors").write_bytes(b"another")
    with pytest.raises(NameTaken):
        offers.resume(Place(tmp_path).jobs, "it")
    assert machine.state.exists()
