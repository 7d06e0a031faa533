"""Bad input, full disks and Ctrl-C: one line, an exit code, and nothing left behind."""

import errno
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from command_line import QUICK, Run, files, last

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.estimation import trainer
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.files import embedding as embeddings
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.model.host import Host
from embedding_estimate.progress import Progress
from embedding_estimate.settings import Settings
from embedding_estimate.training.state import Training

BAD = {
    "empty text": (["", "--name", "x1"], "text is empty: give a prompt"),
    "no text": ([], "text is empty: give a prompt"),
    "text that says nothing": (["()", "--tokens", "2"], "text='()' does what the empty prompt does"),
    "too long a text": (["<" * 1_000_000], "text has 1,000,000 characters: 100,000 are allowed; shorten it"),
    "negative tokens": (["red", "--tokens", "-3"], "tokens=-3 is out of range"),
    "no number": (["red", "--tokens", "two"], "tokens='two': give a whole number"),
    "too many tokens for a chunk": (
        ["red", "--tokens", "5"],
        "tokens=5: a prompt chunk of this model holds 4 tokens; choose 4 or fewer",
    ),
    "unknown optimizer": (["red", "--optimizer", "adm"], "did you mean Adam"),
    "unknown loss": (["red", "--loss", "hubert"], "did you mean Huber"),
    "unknown sampler": (["red", "--tokens", "2", "--sampler", "Eular"], "did you mean Euler"),
    "unknown schedule": (["red", "--tokens", "2", "--schedule", "Kerras"], "did you mean Karras"),
    "bad name": (["red", "--name", "a:b"], "name='a:b'"),
    "no folder": (["red", "--out", "file"], "file: cannot be"),
    "no report": (["red", "--report", "nowhere/r.png"], "nowhere: is not a folder"),
    "no picture": (["red", "--report", "r.txt"], "ends in .png"),
    "no model": (["red", "--model", "missing"], "missing: no such file"),
    "an empty path": (["red", "--out", ""], "--out is empty"),
    "no device": (["red", "--device", "abacus"], "device='abacus'"),
    "no embeddings": (["red", "--embeddings", "nowhere"], "nowhere: is not a folder"),
    "no file": (["--from", "nowhere.pt"], "nowhere.pt: no such file"),
    "no text but bytes": (["\udc80"], "text holds bytes that are not text: give it as UTF-8"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(run: Run, tmp_path: Path, case: str) -> None:
    arguments, message = BAD[case]
    (tmp_path / "file").write_text("in the way")
    result = run("estimate", *arguments)
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in result.output
    assert files(tmp_path) == ["file"]


def test_every_problem_is_told(run: Run) -> None:
    wrong = ("--tokens", "-1", "--loss", "x", "--rate", "-1", "--sampler", "x")
    result = run("estimate", "", "--name", "a:b", *wrong)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 6


def test_a_picture_of_something_else_is_no_report(run: Run, loads: list[dict]) -> None:
    Path("r.png").write_bytes(b"dear")
    estimate = ("estimate", "(red:1.5)", *QUICK)
    embeddings.write(Embedding("y", {"clip_l": torch.zeros(2, 6)}), Path("y.safetensors"))
    for arguments in (estimate, (*estimate, "--curve", "1"), ("compare", "y.safetensors", "red")):
        result = run(*arguments, "--report", "r.png")
        assert (
            result.exit_code == 2
            and "r.png: exists and was not made by this program; give the report another name" in result.stderr
        )
    assert not loads and Path("r.png").read_bytes() == b"dear"
    Path("r.png").write_bytes(b"")
    assert run(*estimate, "--report", "r.png").exit_code == 0


def test_a_taken_name_is_refused_before_the_work(run: Run, loads: list[dict], tmp_path: Path) -> None:
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "X1.webp").touch()
    result = run("estimate", "red", "--name", "x1")
    assert result.exit_code == 2 and "X1.webp has this name" in result.stderr and not loads


def test_a_full_disk_is_found_before_the_work(run: Run, loads: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = run("estimate", "red", "--name", "x1")
    assert result.exit_code == 2 and "No space left on device" in result.stderr and not loads
    assert not Path("embeddings").exists()


def test_a_disk_that_fills_up_does_not_cost_the_embedding(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, rescue = embeddings.write_together, tmp_path / "rescue"
    rescue.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(rescue))

    def write(files: Mapping[Path, Embedding], **options: Any) -> None:
        for path in files:
            if rescue not in path.parents:
                raise EmbeddingError(f"{path}: cannot be written (No space left on device); free some space")
        real(files, **options)

    monkeypatch.setattr(embeddings, "write_together", write)
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK)
    assert result.exit_code == 2 and "is saved as" in result.stderr
    assert [path.name for path in rescue.rglob("*.safetensors")] == ["x1.safetensors"]
    assert not Path("embeddings").exists()

    rescue.rename(tmp_path / "gone")
    rescue.write_text("a file")  # where there was a folder for temporary files
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK)
    assert result.exit_code == 2 and "The embedding is lost: estimate it again" in result.stderr


def test_a_folder_that_another_job_takes_away_is_made_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trainer.estimate

    def estimate(*arguments: object, **options: object) -> object:
        Path("embeddings").rmdir()
        return real(*arguments, **options)

    monkeypatch.setattr(trainer, "estimate", estimate)
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK)
    assert result.exit_code == 0 and Path("embeddings/x1.safetensors").is_file()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_memory_that_runs_out_with_nothing_to_keep_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def estimate(*arguments: object, **options: object) -> object:
        raise error

    monkeypatch.setattr(trainer, "estimate", estimate)
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK)
    line = "Error: out of memory: use --checkpointing or --batch 1, or lower --width or --height, and try again"
    assert result.exit_code == 1 and result.stderr.splitlines()[-1] == line
    assert "Traceback" not in result.output and not Path("embeddings").exists()


def test_a_bug_is_not_taken_for_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def estimate(*arguments: object, **options: object) -> object:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(trainer, "estimate", estimate)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run("estimate", "(red:1.5)", "--name", "x1", *QUICK)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_saves_and_twice_drops(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, presses: int) -> None:
    real = trainer.estimate

    def pressed(settings: Settings, host: Host, listener: Listener, **options: object) -> object:
        def see(progress: Progress) -> None:
            if progress.phase == "train" and progress.done == 1:
                for _ in range(presses):
                    signal.raise_signal(signal.SIGINT)
            listener.on_progress(progress)

        return real(settings, host, replace(listener, on_progress=see), **options)

    monkeypatch.setattr(trainer, "estimate", pressed)
    before = signal.getsignal(signal.SIGINT)
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--json", "--report", "r.png", "--save-every", "1")
    assert result.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    if presses == 1:
        assert last(result)["stopped"] == "interrupted" and last(result)["explained"] is None
        assert Path("embeddings/x1.safetensors").is_file() and Path("r.png").is_file()
    else:
        assert files(tmp_path) == [] and "dropped" in result.stderr


@pytest.mark.parametrize("before", [None, b"an older one"])
def test_a_third_ctrl_c_while_measuring_puts_the_old_embedding_back(
    run: Run, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    path = Path("embeddings/x1.safetensors")
    if before:
        path.parent.mkdir()
        path.write_bytes(before)

    def pressed(*arguments: object, **options: object) -> None:
        assert path.read_bytes() != before  # the new one
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("embedding_estimate.fidelity.quick.measure", pressed)
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--overwrite")
    assert result.exit_code == 130
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize(
    ("error", "stopped", "steps_made", "line"),
    [
        (
            RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
            "failed",
            6,
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (the traceback is in the log)",
        ),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of memory", 9, "out of memory"),  # tried once more
    ],
)
def test_an_error_of_the_model_is_told_and_the_rest_saved(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, stopped: str, steps_made: int, line: str
) -> None:
    real, steps = Training.judge, []

    def judge(self: Training, *arguments: Any) -> None:
        real(self, *arguments)
        steps.append(1)
        if len(steps) >= 2:
            raise error

    monkeypatch.setattr(Training, "judge", judge)
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--save-every", "3", "--json")
    assert result.exit_code == 1 and last(result)["stopped"] == stopped and last(result)["steps"] == steps_made
    assert line in result.stdout
    assert ("measured now" in result.stderr) == (stopped != "failed")  # a model that fails can measure nothing
    assert Path("embeddings/x1.safetensors").is_file() and Path("embeddings-steps/x1/x1-000003.safetensors").is_file()


@pytest.mark.slow
def test_a_reader_that_leaves_costs_no_report(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings.write(Embedding("y", {"any": torch.zeros(2, 6)}), Path("y.safetensors"))

    real = click.echo

    def left(message: object = None, *, err: bool = False, **options: object) -> None:
        if not err:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        real(message, err=err)

    monkeypatch.setattr(click, "echo", left)
    run("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--report", "estimate.png")
    run("compare", "y.safetensors", "(red:1.5)", "--report", "compare.png")
    run("estimate", "(red:1.5)", *QUICK, "--curve", "1,2", "--report", "curve.png")
    assert Path("estimate.png").stat().st_size and Path("compare.png").stat().st_size
    assert Path("curve.png").stat().st_size


@pytest.mark.slow
def test_verbose_tells_what_goes_on(run: Run) -> None:
    quiet = run("estimate", "(red:1.5)", "--name", "x1", *QUICK)
    talking = run("estimate", "(red:1.5)", "--name", "x2", *QUICK, "--verbose")
    line = "DEBUG embedding_estimate.training.handlers: step 10: held-out error"
    assert line not in quiet.stderr and line in talking.stderr
    assert line not in run("estimate", "(red:1.5)", "--name", "x3", *QUICK).stderr


def test_an_interrupt_before_the_work_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "estimate", interrupted)
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK)
    assert result.exit_code == 130 and files(tmp_path) == []


def test_a_path_that_no_system_takes_is_bad_input(run: Run, tmp_path: Path) -> None:
    for option in ("--out", "--report", "--embeddings"):
        result = run("estimate", "red", "--name", "x1", option, f"deep/{'x' * 5000}.png")
        assert result.exit_code == 2 and result.stderr.startswith("Error: "), result.output
    assert files(tmp_path) == []


def test_a_snapshot_that_cannot_be_written_stops_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = embeddings.write

    def write(embedding: Embedding, path: Path, *, overwrite: bool = False) -> None:
        if "steps" in str(path):
            raise EmbeddingError(f"{path}: cannot be written")
        real(embedding, path, overwrite=overwrite)

    monkeypatch.setattr(embeddings, "write", write)
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--save-every", "5")
    assert result.exit_code == 0 and result.stderr.count("cannot be written") == 2
    assert files(tmp_path) == ["embeddings", "embeddings/x1.safetensors"]


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_sleep_while_they_wait_unless_told_otherwise(
    run: Run, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", own or "")
    if own is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    run("inspect", "missing.safetensors")
    assert os.environ["OMP_WAIT_POLICY"] == (own or "PASSIVE")
