"""What a job has left under its name is what the next prompt reads, against the stand-in of the WebUI's modules."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

import torch
from jobs.test_jobs import ended

from embedding_estimate.files.embedding import read
from embedding_estimate.reports import report
from embedding_estimate.settings import Settings

pytestmark = pytest.mark.usefixtures("brief")
QUICK = {"text": "(red:1.5) circle", "name": "zebra-two", "part": "Transformer", "tokens": 2, "learning_steps": 3}


def started(**settings: Any) -> Any:
    from embedding_estimate.hosts.webui import extension

    return extension.place().jobs.start(Settings(**QUICK | {"measure": "Nothing"} | settings))


def finished(**settings: Any) -> Any:
    job = started(**settings)
    ended(job)
    return job


def latest() -> Any:
    from embedding_estimate.hosts.webui import extension

    return extension.place().jobs.latest


def caches() -> list[list[Any]]:
    """Every list in which the WebUI keeps a prompt and its conditioning."""
    from modules import processing

    one, other = processing.StableDiffusionProcessing, processing.StableDiffusionProcessingTxt2Img
    return [one.cached_c, one.cached_uc, other.cached_hr_c, other.cached_hr_uc]


def fill() -> None:
    """As an image leaves them behind."""
    for cache in caches():
        cache[:] = ["zebra-two in rain", "its conditioning"]


def registered() -> torch.Tensor:
    from modules.sd_hijack import model_hijack

    return model_hijack.embedding_db.word_embeddings["zebra-two"].vec


def in_file(path: Path) -> torch.Tensor:
    return next(iter(read(path).vectors.values()))


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["Nothing", "Full"])
def test_the_next_prompt_is_encoded_anew(loaded: Any, measure: str) -> None:
    from modules import processing

    class OfAnExtension(processing.StableDiffusionProcessingImg2Img):
        cached_own = ["a prompt", "its conditioning", "one more"]  # noqa: RUF012

    waiting = processing.StableDiffusionProcessing()  # has taken the lists over already
    fill()
    job = finished(measure=measure)
    assert job.state == "done"
    assert caches() == [[None, None]] * 4
    assert waiting.cached_c == [None, None] and OfAnExtension.cached_own == [None, None, None]


def test_where_the_webui_keeps_no_conditioning_there_is_nothing_to_do(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules import processing

    from embedding_estimate.hosts.webui import prompt_cache

    class Early:
        steps = 20

    monkeypatch.setattr(processing, "StableDiffusionProcessing", Early)
    prompt_cache.forget()
    assert Early.steps == 20


class Queue:
    """The WebUI's queue, and what whoever came next in it would have found."""

    def __init__(self, path: Path):
        self.path, self.lock, self.turns = path, threading.Lock(), []

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.turns.append((self.path.exists(), caches()))
        self.lock.release()


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["Nothing", "Full"])
def test_an_image_that_waits_behind_the_job_uses_its_result(
    loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: str
) -> None:
    from modules import call_queue

    queue = Queue(tmp_path / "embeddings" / "zebra-two.safetensors")
    monkeypatch.setattr(call_queue, "queue_lock", queue)
    fill()
    assert finished(measure=measure).state == "done"
    assert queue.turns[0] == (True, [[None, None]] * 4)


@pytest.mark.slow
def test_an_overwritten_embedding_that_comes_back_is_what_prompts_read(
    loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules.sd_hijack import model_hijack

    path = finished().saved.path
    old, between = in_file(path), []
    draw = report.draw

    def drawn(*arguments: Any) -> Any:
        """Another image is made before the job is over, and the job is dropped after that."""
        model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
        between.append(registered())
        fill()
        latest().stop.stop(save=False)
        return draw(*arguments)

    monkeypatch.setattr(report, "draw", drawn)
    job = finished(text="(blue:1.5) star", overwrite=True)
    assert job.state == "dropped" and not torch.equal(between[0], old)
    assert torch.equal(in_file(path), old) and torch.equal(registered(), old)
    assert caches() == [[None, None]] * 4


@pytest.mark.slow
def test_a_new_name_that_goes_again_is_a_word_again(
    loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules.sd_hijack import model_hijack

    def drawn(*arguments: Any) -> Any:
        model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
        fill()
        latest().stop.stop(save=False)
        return draw(*arguments)

    draw = report.draw
    monkeypatch.setattr(report, "draw", drawn)
    job = finished()
    assert job.state == "dropped" and model_hijack.embedding_db.word_embeddings == {}
    assert caches() == [[None, None]] * 4


@pytest.mark.slow
def test_cards_are_drawn_anew_when_a_page_is_loaded(loaded: Any) -> None:
    from modules.ui_extra_networks import ExtraNetworksUi

    pages = [ExtraNetworksUi(), ExtraNetworksUi()]  # of txt2img and of img2img
    for page in pages:
        page.pages_contents = ["cards from before"]
    assert finished().state == "done"
    assert [page.pages_contents for page in pages] == [[], []]


@pytest.mark.slow
def test_a_busy_queue_keeps_no_job_from_ending(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules.call_queue import queue_lock
    from modules.sd_hijack import model_hijack

    from embedding_estimate.hosts.webui import publishing

    monkeypatch.setattr(publishing, "MOMENT", 0.01)
    draw = report.draw

    def drawn(*arguments: Any) -> Any:
        queue_lock.acquire()  # an image that takes its time
        return draw(*arguments)

    monkeypatch.setattr(report, "draw", drawn)
    assert finished().state == "done"
    assert model_hijack.embedding_db.word_embeddings == {}
    (publisher,) = (thread for thread in threading.enumerate() if thread.name == "embedding-estimate-publish")
    queue_lock.release()
    publisher.join(60)
    assert list(model_hijack.embedding_db.word_embeddings) == ["zebra-two"]


@contextmanager
def busy() -> Iterator[None]:
    """Somebody's images have the queue."""
    from modules.call_queue import queue_lock

    with queue_lock:
        yield
    assert queue_lock.acquire(timeout=60)  # nobody keeps the turn that nobody wants any more
    queue_lock.release()


@pytest.mark.parametrize("save", [True, False])
def test_a_job_that_waits_in_the_queue_ends_when_it_is_stopped(loaded: Any, tmp_path: Path, save: bool) -> None:
    with busy():
        job = started()
        assert job.state == "running" and job.progress is None
        job.stop.stop(save=save)
        ended(job)
        assert (job.state, job.saved) == ("dropped", None)
        assert job.problems == ["interrupted before there was anything to save"]
    assert not (tmp_path / "embeddings").exists()


def test_a_curve_that_waits_in_the_queue_ends_when_it_is_stopped(loaded: Any) -> None:
    from embedding_estimate.hosts.webui import extension

    with busy():
        curve = extension.place().jobs.explore(Settings(**{**QUICK, "token_source": "Number"}))
        curve.stop.stop(save=True)
        ended(curve)
        assert (curve.state, curve.problems) == ("dropped", ["interrupted before there was anything to save"])


def test_a_stop_is_heard_once_the_model_is_loaded(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedding_estimate.hosts.webui import networks
    from embedding_estimate.hosts.webui.a1111.kind import Automatic1111

    chosen = Automatic1111.chosen

    def slowly(webui: Automatic1111) -> Any:
        latest().stop.stop(save=True)
        return chosen(webui)

    def never(texts: Any) -> Any:
        raise AssertionError(f"{texts}: loads networks for a job that was stopped")

    monkeypatch.setattr(Automatic1111, "chosen", slowly)
    monkeypatch.setattr(networks, "active", never)
    job = finished()
    assert job.problems == ["interrupted before there was anything to save"]
    assert not loaded.state.job
