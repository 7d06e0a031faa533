"""The file of a running job's state: when it is written, when it goes, what is said of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage import resuming
from embedding_estimate.storage.at_work import at_work, lock_of
from embedding_estimate.storage.resuming import RollingState


class Job:
    """A job on a clock that is put forward by hand; to collect a state takes a while on it."""

    def __init__(self, folder: Path, name: str = "it", takes: float = 0.0, goes_on: bool = False, **settings: Any):
        self.tree = folder / "embeddings"
        self.file = folder / "embeddings-steps" / f"{name}.resume.safetensors"
        self.now = 1000.0
        self.takes = takes
        self.collected: list[float] = []
        self.notes: list[str] = []
        self.stop = StopToken()
        self.state = RollingState(
            Settings(text="red", name=name, **settings),
            {"contexts": []},
            self.tree,
            self.stop,
            goes_on=goes_on,
            on_note=self.notes.append,
            clock=lambda: self.now,
        )

    @property
    def beside(self) -> list[str]:
        """What lies where states do."""
        return [path.name for path in self.file.parent.iterdir()]

    def collect(self) -> dict[str, Any]:
        self.collected.append(self.now)
        self.now += self.takes
        return {"step": len(self.collected), "steps": 9, "vectors": torch.ones(2, 3)}

    def steps(self, number: int, seconds: float = 1.0) -> None:
        for _ in range(number):
            self.now += seconds
            self.state.offer(self.collect)


def test_it_is_written_every_thirty_seconds(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.steps(29)
    assert not job.file.parent.exists()
    job.steps(70)
    assert job.collected == [1030, 1060, 1090]
    (cut_off,) = resuming.cut_off(job.tree)
    assert (cut_off.name, cut_off.step, cut_off.steps, cut_off.problem) == ("it", 3, 9, "")
    assert resuming.settings_of(cut_off.read()).text == "red"
    assert job.beside == [job.file.name] and job.notes == []


def test_it_takes_a_twentieth_of_the_time_at_most(tmp_path: Path) -> None:
    job = Job(tmp_path, takes=4.0)
    job.steps(300)
    assert job.collected == [1030, 1114, 1198, 1282]  # 4 seconds, and 80 until the next


def test_a_disk_that_is_full_ends_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        job.steps(99)
    assert job.notes == [
        f"no state to resume from: {job.file}: cannot be written (No space left on device); free some space or choose "
        "another folder"
    ]
    assert job.beside == []
    job.steps(30)
    assert job.file.is_file() and len(job.notes) == 1


def test_a_folder_that_cannot_be_made_ends_no_job(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.file.parent.write_text("a file")
    job.steps(30)
    (note,) = job.notes
    assert note.startswith(f"no state to resume from: {job.file.parent}: cannot be created (")


def test_an_older_state_survives_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path)
    job.steps(30)

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        job.steps(30)
    assert resuming.cut_off(job.tree)[0].read()["step"] == 1


def test_a_job_that_keeps_its_prompt_to_itself_has_no_state(tmp_path: Path) -> None:
    job = Job(tmp_path, private=True)
    job.steps(99)
    assert job.collected == [] and not job.file.parent.exists()


def test_it_goes_with_its_folder(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.steps(30)
    job.state.remove()
    job.state.remove()
    assert not job.file.parent.exists()
    job.steps(30)
    (job.file.parent / "it").mkdir()
    job.state.remove()
    assert job.beside == ["it"] and job.notes == []


@pytest.mark.parametrize(("goes_on", "steps", "stays"), [(False, 0, True), (False, 30, False), (True, 0, False)])
def test_a_drop_removes_the_jobs_own(tmp_path: Path, goes_on: bool, steps: int, stays: bool) -> None:
    """What an earlier job of this name has left is not its own until it is written over."""
    Job(tmp_path).steps(30)
    job = Job(tmp_path, goes_on=goes_on)
    with job.state:
        job.steps(steps)
        job.stop.stop(save=False)
    assert job.file.exists() is stays


def test_what_is_no_file_is_listed_as_damaged(tmp_path: Path) -> None:
    """A folder, or on Windows a file that another program holds open."""
    (tmp_path / "embeddings-steps" / "it.resume.safetensors").mkdir(parents=True)
    (damaged,) = resuming.cut_off(tmp_path / "embeddings")
    assert damaged.name == "it" and "cannot be read or is damaged" in damaged.problem


@pytest.mark.parametrize("name", ["a\0b", "", "x" * 5000])
def test_what_can_be_no_name_was_not_cut_off(tmp_path: Path, name: str) -> None:
    with pytest.raises(EmbeddingError, match="no estimate of this name was cut off"):
        resuming.find(tmp_path / "embeddings", name)


def test_those_that_are_there_are_listed_the_latest_first(tmp_path: Path) -> None:
    for date, name in enumerate(("b", "a", "c")):
        job = Job(tmp_path, name)
        job.steps(30)
        os.utime(job.file, (date, date))
    (tmp_path / "embeddings-steps" / "other.safetensors").write_bytes(b"")
    assert [one.name for one in resuming.cut_off(job.tree)] == ["c", "a", "b"]
    assert resuming.find(job.tree, "a").date.timestamp() == 1
    with pytest.raises(EmbeddingError) as caught:
        resuming.find(job.tree, "../a")
    assert str(caught.value) == "'../a': no estimate of this name was cut off; choose from c, a, b"
    for one in resuming.cut_off(job.tree):
        one.discard()
    with pytest.raises(EmbeddingError) as caught:
        resuming.find(job.tree, "a")
    assert str(caught.value) == f"'a': no estimate of this name was cut off; {tmp_path / 'embeddings-steps'} has none"


@pytest.mark.parametrize("kept", [0, 5, 300, -1])
def test_a_damaged_one_gets_a_line_and_stays(tmp_path: Path, kept: int) -> None:
    job = Job(tmp_path)
    job.steps(30)
    job.file.write_bytes(job.file.read_bytes()[:kept])
    (cut_off,) = resuming.cut_off(job.tree)
    line = f"{job.file}: cannot be read or is damaged; discard it, and estimate again"
    with pytest.raises(EmbeddingError) as caught:
        cut_off.read()
    assert str(caught.value) == line and job.file.exists()
    assert cut_off.problem == ("" if kept == -1 else line)  # the end is not looked at for the list
    cut_off.discard()
    assert not job.file.exists()


def test_one_of_a_later_format_gets_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(resuming, "FORMAT", 3)
        Job(tmp_path).steps(30)
    with pytest.raises(EmbeddingError, match="its format is 3, and this version reads 2; resume with the version that"):
        resuming.cut_off(tmp_path / "embeddings")[0].read()


def test_what_a_program_is_at_work_on_is_not_cut_off(tmp_path: Path) -> None:
    job = Job(tmp_path)
    with job.state:
        job.steps(30)
        assert resuming.cut_off(job.tree) == []
        with pytest.raises(EmbeddingError) as caught:
            resuming.find(job.tree, "it")
        busy = "it is being estimated by another program: wait until it is done, or interrupt it there"
        assert str(caught.value) == busy
        for goes_on in (False, True):
            with pytest.raises(EmbeddingError) as caught, Job(tmp_path, goes_on=goes_on).state:
                pytest.fail("it goes on all the same")
            assert str(caught.value) == busy
        with Job(tmp_path, "other").state:
            assert job.file.exists()
    assert [one.name for one in resuming.cut_off(job.tree)] == ["it"]
    with Job(tmp_path, goes_on=True).state:
        assert resuming.cut_off(job.tree) == []


def test_who_only_looks_whether_a_program_is_at_work_stops_no_job(tmp_path: Path) -> None:
    """A page that asks for what was cut off has the lock for a moment."""
    job, looking = Job(tmp_path), threading.Event()

    def look() -> None:
        with lock_of(job.file):
            looking.set()
            time.sleep(0.05)

    page = threading.Thread(target=look)
    page.start()
    assert looking.wait(60)
    with job.state:
        assert at_work(job.file)
    page.join()


def test_a_lock_ends_with_its_program(tmp_path: Path) -> None:
    """Which is killed here, so that it gives nothing back."""
    job = Job(tmp_path)
    job.steps(30)
    code = (
        "import os; from pathlib import Path; from embedding_estimate.storage.at_work import lock_of; "
        f"lock = lock_of(Path({str(job.file)!r})); lock.acquire(); print('held', flush=True); input()"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with program:
        assert program.stdout and program.stdout.readline() == "held\n"
        assert resuming.cut_off(job.tree) == []
        program.kill()
    assert [one.name for one in resuming.cut_off(job.tree)] == ["it"]


def test_where_there_are_no_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none").write_text("a file")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    job = Job(tmp_path)
    with job.state:
        job.steps(30)
    assert [one.name for one in resuming.cut_off(job.tree)] == ["it"]
