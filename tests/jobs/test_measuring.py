"""The full figures of what a job has saved, in a job of their own."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jobs.test_jobs import Place, ended
from toy import ToyHost

from embedding_estimate.errors import EstimateError, NameTaken
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.jobs.job import Job, Saved

pytestmark = pytest.mark.usefixtures("brief")


@pytest.fixture
def place(toy_host: ToyHost, tmp_path: Path) -> Place:
    return Place(toy_host, tmp_path)


@pytest.fixture
def job(place: Place) -> Job:
    """A job with quick figures."""
    job = place.finished(part="Transformer", measure="Quick")
    figures = saved(job).estimate.fidelity
    assert figures is not None and figures.quick
    return job


def saved(job: Job) -> Saved:
    assert job.state == "done" and job.saved
    return job.saved


def measured(place: Place, job: Job) -> Job:
    measuring = place.jobs.measure(job.id)
    ended(measuring)
    return measuring


def test_its_figures_are_those_of_a_full_estimate(place: Place, job: Job) -> None:
    embedding = place.embeddings / "it.safetensors"
    before = embedding.read_bytes()
    full = saved(measured(place, job))
    alone = estimate(replace(job.settings, measure="Full with images"), place.host)
    mine, its = full.estimate.fidelity, alone.fidelity
    assert mine is not None and its is not None and mine.protocol == its.protocol == "v2"
    for name in ("explained", "emphasis_explained", "emphasis_in_context", "explained_truncated", "image_distance"):
        assert getattr(mine, name) == pytest.approx(getattr(its, name), abs=1e-5)  # vectors are saved in fp32
    assert full.estimate.embedding is saved(job).estimate.embedding
    assert embedding.read_bytes() == before
    assert set(full.pictures) == {
        *("prompt", "embedding", "without weights", "empty"),
        *("prompt in context", "embedding in context", "without weights in context"),
    }
    assert full.report == place.reports / "it.png"
    assert place.saved == ["it"]  # nothing was saved anew


def test_the_latest_job_says_what_is_typed(place: Place, job: Job) -> None:
    measuring = measured(place, job)
    assert place.jobs.latest is measuring
    assert (measuring.typed, measuring.trained, measuring.settings) == (job.typed, job.trained, job.settings)
    assert set(measuring.figures) == {
        *("explained", "emphasis_explained", "explained_in_context", "emphasis_in_context")
    }


def test_it_can_be_measured_again(place: Place, job: Job) -> None:
    first = measured(place, job)
    assert saved(measured(place, first)).estimate.fidelity == saved(first).estimate.fidelity


def test_a_stop_leaves_the_figures_from_before(place: Place, job: Job) -> None:
    place.host.stop_at = "measure"
    measuring = measured(place, job)
    assert saved(measuring) == saved(job)
    assert measuring.notes == ["the full measurement was interrupted: these are the figures from before"]


def test_an_estimate_need_not_wait_for_it(place: Place, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    go, show = threading.Event(), place.host.show

    def wait(phase: str, done: int, total: int) -> bool:
        assert phase != "measure" or go.wait(60)
        return show(phase, done, total)

    monkeypatch.setattr(place.host, "show", wait)
    measuring = place.jobs.measure(job.id)
    monkeypatch.setattr(place.host, "borrow", after(place.host, measuring, go))
    other = place.start(name="other", measure="Nothing")
    ended(other)
    assert saved(measuring) == saved(job) and saved(other).path.name == "other.safetensors"


def after(host: ToyHost, measuring: Job, go: threading.Event) -> Callable[..., object]:
    """The toy lends to one at a time, and does not wait."""
    borrow = host.borrow

    def borrowed(*arguments: Any) -> object:
        go.set()
        ended(measuring)
        return borrow(*arguments)

    return borrowed


def test_a_changed_model_is_refused_in_one_line(place: Place, job: Job) -> None:
    place.host.model.info = replace(place.host.model.info, hash="another")
    measuring = measured(place, job)
    assert measuring.state == "failed"
    assert measuring.problems == [
        "it was made with toy, clip skip 1 and emphasis No norm: choose these again to measure it"
    ]
    place.host.model.info = replace(
        place.host.model.info, hash=saved(job).estimate.embedding.provenance["model"]["hash"]
    )
    assert saved(measured(place, measuring)).estimate.fidelity  # chosen again, it is measured from there


def test_a_refused_estimate_leaves_it_alone(place: Place, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    go, show = threading.Event(), place.host.show

    def wait(phase: str, done: int, total: int) -> bool:
        assert go.wait(60)
        return show(phase, done, total)

    monkeypatch.setattr(place.host, "show", wait)
    measuring = place.jobs.measure(job.id)
    with pytest.raises(NameTaken):
        place.start()
    assert not measuring.stop.stopped
    go.set()
    ended(measuring)
    figures = saved(measuring).estimate.fidelity
    assert figures is not None and not figures.quick


def test_what_is_over_was_not_interrupted(place: Place, job: Job) -> None:
    measuring = measured(place, job)
    measuring.interrupt(save=True)
    place.finished(name="other", measure="Nothing")
    assert not measuring.stop.stopped


def test_a_job_that_saved_nothing_is_refused(place: Place) -> None:
    with pytest.raises(EstimateError, match=r"^there is no embedding to measure: estimate one first, or use compare$"):
        place.jobs.measure("unknown")
    failed = place.finished(sampler="Heun", width=7)
    with pytest.raises(EstimateError, match="no embedding to measure"):
        place.jobs.measure(failed.id)
