import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from suites import quick_first
from toy import ToyHost

from embedding_estimate.errors import Busy, EmbeddingError, NameTaken, SettingsError
from embedding_estimate.files.embedding import Embedding, read
from embedding_estimate.jobs.job import Curve, Job
from embedding_estimate.jobs.jobs import KEPT, Jobs
from embedding_estimate.objectives.unet import UNetObjective
from embedding_estimate.progress import Progress
from embedding_estimate.reports import report
from embedding_estimate.settings import Settings
from embedding_estimate.training.preconditioning import SAMPLES

TEXT = "(red:1.5) circle"
pytestmark = pytest.mark.usefixtures("brief")


class Place:
    """A toy host, two folders, and what was said to be saved."""

    def __init__(self, host: ToyHost, folder: Path):
        self.host = host
        self.embeddings, self.reports = folder / "embeddings", folder / "reports"
        self.saved: list[str] = []
        self.jobs = Jobs(
            lambda settings: host,
            lambda: self.embeddings,
            lambda: self.reports,
            on_saved=lambda job: self.saved.append(job.settings.name),
        )

    def start(self, **settings: Any) -> Job:
        return self.jobs.start(Settings(**{"text": TEXT, "name": "it", "tokens": 2, "learning_steps": 5, **settings}))

    def finished(self, **settings: Any) -> Job:
        job = self.start(**settings)
        ended(job)
        return job


def ended(job: Job) -> None:
    until = time.monotonic() + 300  # the machine may be busy
    while job.state == "running":
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture
def place(toy_host: ToyHost, tmp_path: Path) -> Place:
    return Place(toy_host, tmp_path)


@pytest.fixture
def held(place: Place, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until it is set, the job stands still before each of its reports."""
    go = threading.Event()
    show = place.host.show

    def wait(phase: str, done: int, total: int) -> bool:
        assert go.wait(60)
        return show(phase, done, total)

    monkeypatch.setattr(place.host, "show", wait)
    return go


def test_a_job_saves_an_embedding_and_draws_a_report(place: Place) -> None:
    job = place.finished()
    assert (job.state, job.problems) == ("done", [])
    assert job.saved and job.saved.path == place.embeddings / "it.safetensors"
    assert read(job.saved.path).tokens == 2
    assert job.saved.report == place.reports / "it.png" and job.saved.report.read_bytes().startswith(b"\x89PNG")
    assert place.saved == ["it"]
    assert job.curve[-1][0] == 5
    assert {phase for phase, _, _ in place.host.shown} == {"prepare", "train", "measure"}
    assert job.seconds_left is None


def test_notes_are_there_from_the_start_and_once(place: Place, held: threading.Event) -> None:
    job = place.start(sampler="DPM++ SDE", initial_prompt="(red:1.3)")
    sampler = "sampler: no effect here, because the Attention part always uses Euler"
    assert job.notes[0] == sampler
    held.set()
    ended(job)
    assert job.state == "done" and job.saved
    assert job.notes.count(sampler) == 1 and len(job.notes) == len(set(job.notes))
    assert set(job.saved.estimate.notes) <= set(job.notes)
    assert "initial_prompt: its weights have no effect, because only the vectors of its tokens are used" in job.notes


def test_a_curves_notes_are_there_while_it_runs(place: Place) -> None:
    curve = place.jobs.explore(Settings(text="red++ (circle:1.8)", steps=3, learning_steps=3, save_every=1000))
    ended(curve)
    assert curve.state == "done"
    assert [note.partition(" ")[0] for note in curve.notes] == ["red++"]


def test_bad_settings_are_told_at_once(place: Place) -> None:
    with pytest.raises(SettingsError) as caught:
        place.start(text="", tokens=-1)
    assert len(caught.value.problems) == 2 and place.jobs.latest is None
    with pytest.raises(SettingsError):
        place.start(text="")


def test_settings_that_the_model_cannot_serve_fail_with_each_line(place: Place) -> None:
    job = place.finished(sampler="Heun", width=7)
    assert job.state == "failed" and len(job.problems) == 2


def test_a_taken_name_is_told_at_once(place: Place) -> None:
    place.finished(measure="Nothing")
    with pytest.raises(NameTaken):
        place.start(name="IT")
    assert place.finished(overwrite=True, measure="Nothing").state == "done"


def test_a_report_is_called_like_the_embedding(place: Place) -> None:
    """How it is typed is no name for a file."""
    job = place.finished(typed_weight=1.2, measure="Nothing")
    assert job.saved and job.saved.report == place.reports / "it.png"


def test_a_folder_that_cannot_be_made_is_told_at_once(place: Place, tmp_path: Path) -> None:
    (tmp_path / "embeddings").write_text("a file")
    with pytest.raises(EmbeddingError, match="cannot be created"):
        place.start()


def test_a_second_job_is_refused_while_one_runs(place: Place, held: threading.Event) -> None:
    first = place.start(measure="Nothing")
    with pytest.raises(Busy, match="it is being estimated"):
        place.start(name="other")
    held.set()
    ended(first)
    assert place.finished(name="other", measure="Nothing").state == "done"


@pytest.mark.parametrize("save", [True, False])
def test_stop(place: Place, held: threading.Event, save: bool) -> None:
    job = place.start(learning_steps=100_000)
    held.set()
    while not job.curve:
        time.sleep(0.005)
    job.stop.stop(save=save)
    ended(job)
    assert job.state == ("done" if save else "dropped")
    assert (place.embeddings / "it.safetensors").exists() == save


def measuring(place: Place, monkeypatch: pytest.MonkeyPatch, then: Callable[[Job], None], **settings: Any) -> Job:
    """A job that has come to its end, and what happened when it began to measure."""
    begun: list[int] = []
    show = place.host.show

    def wait(phase: str, done: int, total: int) -> bool:
        if phase == "measure" and not begun:
            begun.append(done)
            assert place.jobs.latest
            then(place.jobs.latest)
        return show(phase, done, total)

    monkeypatch.setattr(place.host, "show", wait)
    job = place.finished(**settings)
    assert begun
    return job


def test_the_embedding_is_there_before_it_is_measured(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Embedding] = []
    job = measuring(place, monkeypatch, lambda job: found.append(read(*job.trained)))
    assert job.saved and job.trained == [job.saved.path]
    (before,), after = found, read(job.saved.path)
    assert all(map(torch.equal, before.vectors.values(), after.vectors.values()))
    assert before.provenance["fidelity"] is None and after.provenance["fidelity"]["protocol"] == "quick v2"
    assert before.provenance == {**after.provenance, "fidelity": None}


def test_a_job_that_is_measured_knows_what_to_type_and_the_figures_so_far(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, dict[str, float | None]]] = []
    job = measuring(place, monkeypatch, lambda job: seen.append((job.typed, dict(job.figures))), typed_weight=1.2)
    assert seen == [("(it:1.2)", {})]
    assert job.saved and job.saved.estimate.fidelity
    whole = job.saved.estimate.fidelity.to_dict()
    assert len(job.figures) == 4 and all(whole[name] == value for name, value in job.figures.items())


@pytest.mark.parametrize("before", [None, b"an older one"])
def test_a_stop_while_it_is_measured(place: Place, monkeypatch: pytest.MonkeyPatch, before: bytes | None) -> None:
    path = place.embeddings / "it.safetensors"
    if before:
        place.embeddings.mkdir()
        path.write_bytes(before)
    dropped = measuring(place, monkeypatch, lambda job: job.stop.stop(save=False), overwrite=True)
    assert dropped.state == "dropped" and (path.read_bytes() if path.exists() else None) == before
    saved = measuring(place, monkeypatch, lambda job: job.stop.stop(save=True), overwrite=True)
    assert saved.state == "done" and saved.saved and saved.saved.estimate.fidelity is None
    assert read(path).tokens == 2


def test_a_drop_that_comes_too_late_is_told(place: Place) -> None:
    """While the report is written and the host is told, a job still runs."""
    place.jobs = Jobs(
        lambda settings: place.host,
        lambda: place.embeddings,
        lambda: place.reports,
        on_saved=lambda job: job.interrupt(save=False),
    )
    job = place.finished()
    assert job.state == "done" and job.saved and read(job.saved.path).tokens == 2
    assert "it was too late to drop the embedding, which is saved: delete its file if you do not want it" in job.notes


def test_a_picture_of_the_users_is_left_alone(place: Place) -> None:
    place.reports.mkdir()
    picture = place.reports / "it.png"
    picture.write_bytes(b"a holiday")
    job = place.finished()
    assert job.state == "done" and job.saved and job.saved.report is None
    assert picture.read_bytes() == b"a holiday"
    assert (
        f"the report could not be saved: {picture} is a picture of yours: move it, or choose another name" in job.notes
    )


def test_a_disk_that_fills_up_while_it_is_measured_costs_the_figures(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise EmbeddingError("it.safetensors: cannot be written (No space left on device); free some space")

    fill = partial(monkeypatch.setattr, "embedding_estimate.files.embedding.write_together", full)
    job = measuring(place, monkeypatch, lambda job: fill())
    assert job.state == "done" and job.saved and read(job.saved.path).provenance["fidelity"] is None
    assert any("The embedding is saved without its figures" in note for note in job.notes)


def test_a_fault_of_the_measuring_costs_the_figures_and_is_logged(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(job: Job) -> None:
        raise KeyError("broken")

    job = measuring(place, monkeypatch, broken)
    assert job.state == "done" and place.saved == ["it"]
    assert read(place.embeddings / "it.safetensors").provenance["fidelity"] is None
    reason = "not measured, the model failed: KeyError: 'broken' (the traceback is in the log); try compare"
    assert reason in job.notes
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [KeyError]


def test_a_fault_behind_the_training_leaves_the_embedding(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a device does not even answer when the model is given back."""

    def broken(*args: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr("embedding_estimate.reports.report.draw", broken)
    job = place.finished(measure="Nothing")
    assert job.state == "failed" and read(place.embeddings / "it.safetensors").tokens == 2
    assert "it.safetensors: was saved before that" in job.notes[-1]


def test_the_hosts_own_button_saves(place: Place) -> None:
    place.host.stop_at = "train"
    job = place.finished(learning_steps=100_000)
    assert job.state == "done" and job.saved and job.saved.estimate.stopped == "interrupted"


def test_running_out_of_memory_says_what_to_lower(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(place.host.model, "denoise", exhausted)
    job = place.finished()
    line = "out of memory: turn on Save memory, set Batch size to 1, or lower Width or Height, and try again"
    assert job.state == "failed" and job.problems == [line]
    assert not place.host.lent


def test_what_is_trained_is_saved_where_measuring_fails(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object, **more: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("embedding_estimate.fidelity.quick.measure", exhausted)
    job = place.finished()
    assert job.state == "done" and job.saved and job.saved.path.exists() and job.saved.estimate.fidelity is None
    assert any("not measured" in note for note in job.notes)


def fails_at(place: Place, monkeypatch: pytest.MonkeyPatch, step: int, error: Exception | None = None) -> None:
    """The model breaks in that step's evaluation of the loss; each step of these has one."""
    real, losses = UNetObjective.loss, []

    def loss(objective: UNetObjective, vectors: Any, drawn: Any) -> torch.Tensor:
        found = real(objective, vectors, drawn)
        losses.extend([1] * found.requires_grad)
        if len(losses) > SAMPLES + step - 1:
            raise error or RuntimeError("CUDA error: an illegal memory access was encountered\nand more")
        return found

    monkeypatch.setattr(UNetObjective, "loss", loss)


UNET = {"part": "U-Net", "steps": 4, "learning_steps": 30, "save_every": 2}


def test_an_error_in_the_training_costs_neither_the_best_so_far_nor_snapshots(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fails_at(place, monkeypatch, 21)
    job = place.finished(**UNET)
    assert (job.state, job.problems) == ("done", []) and job.saved and job.saved.estimate.fidelity is None
    provenance = read(place.embeddings / "it.safetensors").provenance
    assert (provenance["stopped"], provenance["steps"]) == ("failed", 20)
    reason = "RuntimeError: CUDA error: an illegal memory access was encountered (the traceback is in the log)"
    assert f"the model failed at step 21: {reason}; the best vectors before were kept" in job.notes
    (record,) = caplog.records
    assert record.exc_info and record.exc_info[0] is RuntimeError
    assert record.getMessage() == "step 21 of the training failed"
    steps = sorted(path.name for path in (place.embeddings.parent / "embeddings-steps" / "it").iterdir())
    assert steps == [f"it-{step:06d}.safetensors" for step in range(2, 21, 2)]
    last = read(place.embeddings.parent / "embeddings-steps" / "it" / steps[-1])
    assert torch.equal(last.vectors["emb_params"], read(place.embeddings / "it.safetensors").vectors["emb_params"])


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), torch.cuda.OutOfMemoryError("CUDA out of memory")])
@pytest.mark.parametrize("typed_weight", quick_first(1, [1.0, 0.0]))
def test_an_error_before_the_first_check_keeps_the_last_vectors_known(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception, typed_weight: float
) -> None:
    """They are looked at in the first step, and then now and then."""
    fails_at(place, monkeypatch, 5, error)
    job = place.finished(**UNET | {"save_every": 0, "typed_weight": typed_weight})
    (kept,) = re.findall(r"the vectors of step (\d+) were kept, before any were judged", " ".join(job.notes))
    assert job.state == "done" and 1 <= int(kept) <= 4
    left = read(place.embeddings / "it.safetensors")
    start = place.host.model.token_vectors("red circle")["clip_l"].float()
    assert left.provenance["steps"] == int(kept) and not torch.equal(left.vectors["emb_params"], start)


def test_an_error_in_the_first_step_has_nothing_to_keep(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_at(place, monkeypatch, 1)
    job = place.finished(**UNET)
    assert job.state == "failed" and "RuntimeError: CUDA error" in job.problems[0]
    assert not place.embeddings.exists() or not any(place.embeddings.iterdir())


def test_a_device_that_does_not_answer_any_more_leaves_the_embedding(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be read from it, and giving the model back fails as well."""
    fails_at(place, monkeypatch, 21)
    real = place.host.borrow

    @contextmanager
    def borrow(check: Callable[[], None]) -> Iterator[Any]:
        with real(check) as model:
            yield model
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(place.host, "borrow", borrow)
    job = place.finished(**UNET)
    assert job.state == "failed" and "was saved before that" in job.notes[-1]
    assert read(place.embeddings / "it.safetensors").provenance["stopped"] == "failed"


@pytest.mark.parametrize("dropped", [True, False])
def test_whoever_uses_names_is_told_of_each_that_was_written(
    place: Place, monkeypatch: pytest.MonkeyPatch, dropped: bool
) -> None:
    """For it may have been used in between."""

    def drawn(*arguments: Any) -> Any:
        assert place.jobs.latest is not None
        if not dropped:
            raise ZeroDivisionError
        place.jobs.latest.stop.stop(save=False)

    monkeypatch.setattr(report, "draw", drawn)
    job = place.finished(measure="Nothing")
    assert (job.state, job.saved) == ("dropped" if dropped else "failed", None)
    assert place.saved == ["it"] and (place.embeddings / "it.safetensors").exists() == (not dropped)


def test_nobody_is_told_of_a_name_that_was_never_written(place: Place) -> None:
    place.host.stop_at = "prepare"
    assert place.finished().state == "dropped" and place.saved == []


def test_a_report_that_cannot_be_drawn_costs_nothing_else(place: Place, tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file")
    job = place.finished()
    assert job.state == "done" and job.saved and job.saved.report is None
    assert any("report" in note for note in job.notes)


def explored(place: Place, **settings: Any) -> Curve:
    return place.jobs.explore(Settings(**{"text": TEXT, "learning_steps": 5, "steps": 4, **settings}))


def test_a_curve_has_the_figures_of_each_number_and_saves_nothing(place: Place) -> None:
    curve = explored(place)
    ended(curve)
    assert (curve.state, curve.problems, curve.saved) == ("done", [], None)
    assert curve.numbers == [point.tokens for point in curve.points] == [1, 2, 4]
    assert all(point.fidelity.image_distance is None for point in curve.points)
    assert place.jobs.latest is curve and place.saved == [] and not place.embeddings.exists()


def test_a_curve_takes_what_an_estimate_takes(place: Place) -> None:
    with pytest.raises(SettingsError, match="text is empty"):
        explored(place, text="")
    with pytest.raises(SettingsError, match="a curve sets the number itself"):
        explored(place, token_source="Initial prompt", initial_prompt="red")
    curve = explored(place, sampler="Heun")
    ended(curve)
    assert curve.state == "failed" and "Heun" in curve.problems[0]


@pytest.mark.slow
def test_a_curve_and_an_estimate_exclude_each_other(place: Place, held: threading.Event) -> None:
    curve = explored(place)
    with pytest.raises(Busy, match="the number of tokens is being estimated"):
        place.start()
    with pytest.raises(Busy, match="the number of tokens is being estimated"):
        explored(place)
    held.set()
    ended(curve)
    assert place.finished().state == "done"


@pytest.mark.slow
@pytest.mark.parametrize("save", [True, False])
def test_a_curve_that_is_stopped_keeps_its_points_or_not(place: Place, save: bool) -> None:
    curve = explored(place, learning_steps=400, part="U-Net")
    while not curve.points:
        time.sleep(0.005)
    curve.stop.stop(save=save)
    ended(curve)
    assert curve.state == ("done" if save else "dropped") and [point.tokens for point in curve.points] == [1]


def test_a_curve_that_is_stopped_before_its_first_point(place: Place) -> None:
    place.host.stop_at = "prepare"
    curve = explored(place)
    ended(curve)
    assert curve.state == "dropped" and "before there was anything to show" in curve.problems[0]


@pytest.mark.slow
def test_old_jobs_are_forgotten(place: Place) -> None:
    ids = [
        place.finished(name=f"it-{number}", part="Transformer", learning_steps=1, measure="Nothing").id
        for number in range(KEPT + 1)
    ]
    assert place.jobs.find(ids[0]) is None and place.jobs.find(ids[1]) is not None
    assert place.jobs.latest is place.jobs.find(ids[-1])


@pytest.mark.slow
def test_trials_are_no_part_of_the_curve(place: Place, few_trials: None) -> None:
    """Behind the sketch the weight is tried, of which there is nothing to draw, and then the second part goes on."""
    job = place.finished(part="Attention + U-Net", typed_weight=0.0, learning_steps=30, measure="Nothing")
    assert job.state == "done" and job.saved
    (_, sketch), (after, part), (refined, second) = job.saved.estimate.stretches
    assert (sketch, part, second) == ("Sketch", "Attention", "U-Net")
    lines = {stretch.name: [reading.step for reading in stretch.readings] for stretch in job.curve.stretches}
    assert list(lines) == ["Sketch", "U-Net"]
    assert lines["Sketch"][-1] == after and refined < min(lines["U-Net"])


def test_time_left_of_a_part_that_counts_on() -> None:
    """The second training part begins behind the steps of the first."""
    job = Job("1", Settings(text="a", name="b"))
    job.follow(Progress("prepare", 5, 5))
    job.follow(Progress("train", 251, 334))
    job.phase_began -= 10
    job.follow(Progress("train", 260, 334))
    assert job.seconds_left == pytest.approx(74, rel=0.01)
