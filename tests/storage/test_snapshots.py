"""The files of a training on its way: which stay, which come back, which go."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from embedding_estimate.errors import EmbeddingError, Interrupted
from embedding_estimate.fidelity.previews import Preview
from embedding_estimate.files.embedding import Embedding, read
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage.snapshots import Snapshots


class Job:
    """Jobs of one name after the other, each of which keeps snapshots of these steps."""

    def __init__(self, folder: Path):
        self.tree = folder / "embeddings"
        self.steps = folder / "embeddings-steps"
        self.notes: list[str] = []

    def run(self, *steps: int, overwrite: bool = False, ends_in: BaseException | None = None) -> None:
        self.stop = StopToken()
        settings = Settings(text="red", name="it", overwrite=overwrite)
        snapshots = Snapshots(settings, self.tree, self.stop, on_note=self.notes.append)
        with self.ending(ends_in), snapshots.kept():
            for step in steps:
                snapshots.write(Embedding("it", {"clip_l": torch.full((1, 6), float(step))}), step)
            if ends_in:
                if isinstance(ends_in, Interrupted):
                    self.stop.stop(save=False)
                raise ends_in

    @contextmanager
    def ending(self, error: BaseException | None) -> Iterator[None]:
        if error is None:
            yield
            return
        with pytest.raises(type(error)):
            yield

    def kill(self, *steps: int) -> None:
        """What a killed job leaves."""
        self.run(*steps, ends_in=RuntimeError())

    @property
    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.steps)) for path in self.steps.rglob("*.safetensors"))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_they_lie_beside_the_embeddings(job: Job) -> None:
    job.run(5, 10)
    assert job.files == ["it/it-000005.safetensors", "it/it-000010.safetensors"]
    assert not job.tree.exists() and job.notes == []


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), KeyboardInterrupt(), SystemExit()])
def test_an_error_deletes_nothing(job: Job, error: BaseException) -> None:
    job.run(5, ends_in=error)
    assert job.files == ["it/it-000005.safetensors"]


def test_a_drop_deletes_its_own_and_brings_back_those_before(job: Job) -> None:
    job.run(5, ends_in=Interrupted("dropped"))
    assert not job.steps.exists() or not any(job.steps.iterdir())
    job.run(10)
    job.run(5, 10, 15, overwrite=True, ends_in=Interrupted("dropped"))
    assert job.files == ["it/it-000010.safetensors"]
    assert read(job.steps / job.files[0]).vectors["emb_params"][0, 0] == 10


def test_a_drop_by_another_exception_is_a_drop(job: Job) -> None:
    """A third Ctrl-C."""
    job.run(10)
    snapshots = Snapshots(Settings(name="it", overwrite=True), job.tree, stop := StopToken(), on_note=job.notes.append)
    with pytest.raises(KeyboardInterrupt), snapshots.kept():
        snapshots.write(Embedding("it", {"clip_l": torch.ones(1, 6)}), 5)
        stop.stop(save=False)
        raise KeyboardInterrupt
    assert job.files == ["it/it-000010.safetensors"]


def test_a_shorter_job_that_overwrites_leaves_no_higher_numbers(job: Job) -> None:
    job.run(5, 10, 15)
    job.run(5, overwrite=True)
    assert job.files == ["it/it-000005.safetensors"] and job.notes == []


def test_a_job_that_writes_none_leaves_those_before(job: Job) -> None:
    job.run(5)
    job.run(overwrite=True)
    assert job.files == ["it/it-000005.safetensors"]


def test_the_command_that_a_kill_interrupted_can_be_given_again(job: Job) -> None:
    job.kill(5, 10)
    job.run(5)
    assert job.files == [
        "it (before)/it-000005.safetensors",
        "it (before)/it-000010.safetensors",
        "it/it-000005.safetensors",
    ]
    assert job.notes == [
        f"{job.steps / 'it (before)'}: holds the snapshots of an earlier job with this name; delete them if you do "
        "not need them"
    ]


def test_nothing_is_lost_where_jobs_are_killed_while_they_overwrite(job: Job) -> None:
    job.run(5)
    job.run(10, overwrite=True, ends_in=RuntimeError())
    job.run(15, overwrite=True, ends_in=RuntimeError())
    assert job.files == [
        "it (before 2)/it-000010.safetensors",
        "it (before)/it-000005.safetensors",
        "it/it-000015.safetensors",
    ]
    job.run(20, overwrite=True)
    assert job.files == ["it/it-000020.safetensors"]


def test_a_folder_that_cannot_be_made_is_told(job: Job) -> None:
    job.steps.write_text("a file")
    with pytest.raises(EmbeddingError, match="cannot be created"):
        job.run(5)
    with pytest.raises(EmbeddingError, match="cannot be created"):
        Snapshots(Settings(name="it"), job.tree, StopToken(), on_note=job.notes.append).try_folder()


def test_pictures_lie_beside_them(job: Job) -> None:
    picture = Image.new("RGB", (8, 8))
    snapshots = Snapshots(Settings(name="it"), job.tree, StopToken(), on_note=job.notes.append)
    with snapshots.kept():
        snapshots.draw(Preview(5, {"prompt": picture, "embedding": picture, "empty": picture}))
    with Image.open(job.steps / "it" / "it-000005.png") as row:
        assert row.size == (24, 8)
