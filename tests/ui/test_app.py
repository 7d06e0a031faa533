"""The standalone app without a browser."""

import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from toy import ToyHost

from embedding_estimate.cli import main
from embedding_estimate.errors import EmbeddingError, EstimateError
from embedding_estimate.jobs.job import Job
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
from embedding_estimate import app  # imports gradio

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # see conftest.py


@pytest.fixture
def place(toy_host: ToyHost, tmp_path: Path) -> app.Standalone:
    return app.Standalone(toy_host, tmp_path / "embeddings")


def started(place: app.Standalone, **settings: Any) -> Job:
    quick = {"text": "(red:1.5) circle", "name": "it", "tokens": 2, "learning_steps": 3, "measure": "Nothing"}
    return place.jobs.start(Settings(**quick | settings))


def ended(job: Job) -> Job:
    while job.state == "running":
        time.sleep(0.01)
    return job


def test_a_saved_name_can_be_typed_in_the_next_prompt(place: app.Standalone, toy_host: ToyHost, tmp_path: Path) -> None:
    job = ended(started(place))
    assert job.state == "done" and toy_host.added["it"]["clip_l"].shape == (2, 6)
    assert job.saved.path == tmp_path / "embeddings" / "it.safetensors"
    assert job.saved.report == tmp_path / "embeddings-reports" / "it.png"


def test_a_name_that_no_prompt_can_call_is_noted(
    place: app.Standalone, toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, vectors: object) -> None:
        raise EmbeddingError("no token in this name")

    monkeypatch.setattr(toy_host, "add_embedding", refuse)
    job = ended(started(place))
    assert job.state == "done" and "no token in this name" in job.notes


def test_the_samplers_of_the_host_are_choices(place: app.Standalone) -> None:
    default = Settings()
    assert default.sampler in place.choices("sampler") and default.schedule in place.choices("schedule")
    assert place.choices("name") == ()


def test_the_end_of_the_app_saves_what_a_job_has_reached(place: app.Standalone) -> None:
    job = started(place, learning_steps=100_000)
    while not job.curve:
        time.sleep(0.01)
    app.finish(place.jobs)
    assert job.state == "done" and job.saved.estimate.stopped == "interrupted"
    app.finish(place.jobs)


class Deaf:
    """Jobs of which the last hears no stop."""

    def __init__(self) -> None:
        self.latest = SimpleNamespace(state="running", stop=StopToken())


def test_the_end_of_the_app_waits_so_long_for_a_job_that_hears_no_stop(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Deaf()
    app.finish(jobs, patience=0)
    assert jobs.latest.stop.stopped and not jobs.latest.stop.dropped
    assert "did not stop in time" in capsys.readouterr().err


def test_another_interrupt_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def interrupted(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    app.finish(Deaf())
    assert len(waits) == 3


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(EstimateError, match=f"127.0.0.1:{port}: cannot be listened on"):
            app.free("127.0.0.1", port)
        monkeypatch.setattr(app, "PORTS", (port, 0))
        assert app.free("127.0.0.1", None) == 0
    with pytest.raises(EstimateError, match=r"192\.0\.2\.1: cannot"):
        app.free("192.0.2.1", None)  # of nobody, RFC 5737


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("0.0.0.0", "http://127.0.0.1:80/"),
        ("::1", "http://[::1]:80/"),
        ("::", "http://[::1]:80/"),
        ("box.lan", "http://box.lan:80/"),
    ],
)
def test_where_a_browser_finds_it(address: str, url: str) -> None:
    assert app.url_of(address, 80) == url


def test_style_and_javascript_are_found() -> None:
    assert (app.assets() / "javascript" / "embedding_estimate.js").is_file()


@pytest.mark.parametrize("there", [True, False])
def test_the_command(tmp_path: Path, toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """The folder that is saved in is the one that prompts are read for."""
    seen: dict[str, Any] = {}
    if there:
        (tmp_path / "mine").mkdir()
    command = sys.modules["embedding_estimate.cli.ui"]  # the package has the command under this name
    monkeypatch.setattr(command, "load", lambda options: seen.update(load=options) or toy_host)
    monkeypatch.setattr(app, "serve", lambda place, **options: seen.update(options, folder=place.folder()))
    done = CliRunner().invoke(main, ["ui", "--no-browser", "--port", "8000", "--out", str(tmp_path / "mine")])
    assert done.exit_code == 0, done.output
    assert seen["load"].embeddings == (tmp_path / "mine" if there else None)
    assert (seen["address"], seen["port"], seen["in_browser"]) == ("127.0.0.1", 8000, False)
    assert seen["folder"] == str((tmp_path / "mine").resolve())
