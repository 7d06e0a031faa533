"""`estimate --resume NAME` on the toy host."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from command_line import QUICK, Run, files
from toy import ToyModel

from embedding_estimate.storage import resuming

CONTEXTS = "blue {}\n{} cat\n"


class Killed(BaseException):
    """Nothing in the program catches it."""


@pytest.fixture
def left(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a killed command leaves; it was given a model, contexts and settings."""
    monkeypatch.setattr(resuming, "EVERY", 0.0)
    monkeypatch.setattr(resuming, "SHARE", math.inf)  # a state behind each step
    state = tmp_path / "embeddings-steps" / "it.resume.safetensors"
    (tmp_path / "contexts.txt").write_text(CONTEXTS)
    (tmp_path / "model.safetensors").write_bytes(b"")
    real, behind = ToyModel._encode_vectors, iter(range(1000))

    def killing(self: ToyModel, *arguments: Any) -> Any:
        if state.exists() and next(behind) == 20:
            raise Killed
        return real(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(ToyModel, "_encode_vectors", killing)
        run(*begun("it", "--model", "model.safetensors", "--emphasis", "No norm"))
    return state


def begun(name: str, *options: str) -> list[str]:
    return ["estimate", "red (circle:1.8)", "--name", name, *QUICK, "--contexts", "contexts.txt", *options]


def test_it_goes_on_with_the_model_the_contexts_and_the_settings(
    run: Run, loads: list[dict[str, Any]], left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads.clear()
    os.utime(tmp_path / "contexts.txt")
    result = run("estimate", "--resume", "it")
    assert result.exit_code == 0 and "it goes on from step " in result.stderr and " of 10\n" in result.stderr
    ((loaded),) = loads
    assert (loaded["model"], loaded["emphasis"]) == (str(tmp_path / "model.safetensors"), "No norm")
    assert files(tmp_path) == [
        "contexts.txt", "embeddings", "embeddings/it.safetensors", "model.safetensors",
    ]  # fmt: skip
    resumed = (tmp_path / "embeddings" / "it.safetensors").read_bytes()
    (tmp_path / "embeddings" / "it.safetensors").unlink()
    assert run(*begun("it")).exit_code == 0
    assert (tmp_path / "embeddings" / "it.safetensors").read_bytes() == resumed


def test_a_state_keeps_what_was_to_be_measured_though_no_report_shows_its_images(run: Run, left: Path) -> None:
    assert resuming.find(left.parent.parent / "embeddings", "it").read()["settings"]["measure"] == "By effort"
    assert run("estimate", "--resume", "it", "--measure", "By effort", "--report", "it.png").exit_code == 0


def test_what_says_the_same_may_be_given_again(run: Run, left: Path) -> None:
    result = run("estimate", "red (circle:1.8)", "--resume", "it", "--tokens", "2", "--contexts", "contexts.txt")
    assert result.exit_code == 0 and not left.exists()


def test_what_says_something_else_is_refused(run: Run, left: Path, tmp_path: Path) -> None:
    (tmp_path / "contexts.txt").write_text("another {}\n")
    options = ["--resume", "it", "--tokens", "3", "--cfg-scale", "3", "--steps", "4", "--contexts", "contexts.txt"]
    result = run("estimate", "blue", *options)
    assert result.exit_code == 2 and left.exists()
    way_out = "leave it out, or estimate again without --resume"
    assert sorted(result.stderr.splitlines()) == [
        "Error: --contexts: it was begun with others; leave them out",
        f"Error: --guidance-scale 3.0: it was begun with 7.0; {way_out}",
        f"Error: --tokens 3: it was begun with 2; {way_out}",
        f"Error: TEXT 'blue': it was begun with 'red (circle:1.8)'; {way_out}",
    ]


def test_a_name_without_a_state_is_refused_with_those_there_are(run: Run, left: Path) -> None:
    result = run("estimate", "--resume", "its")
    assert result.exit_code == 2
    assert result.stderr == "Error: 'its': no estimate of this name was cut off; choose from it\n"


@pytest.mark.parametrize("option", [("--dry-run",), ("--infotext",), ("--curve", "1,2"), ("--from", "x.pt")])
def test_what_means_something_else_is_refused(run: Run, left: Path, option: tuple[str, ...]) -> None:
    result = run("estimate", "--resume", "it", *option)
    assert result.exit_code == 2 and left.exists()
    assert result.stderr == f"Error: --resume goes on with what was begun: leave {option[0]} out\n"


def test_a_damaged_state_is_refused_and_stays(run: Run, left: Path) -> None:
    left.write_bytes(left.read_bytes()[:-1])
    result = run("estimate", "--resume", "it")
    assert result.exit_code == 2
    assert result.stderr == f"Error: {left}: cannot be read or is damaged; discard it, and estimate again\n"
    assert left.exists()
