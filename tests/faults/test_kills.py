"""SIGKILL, which nothing can catch: no file is ever half, nothing that was there before is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from shaking import shaken

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL"),
]
SCRIPT = Path(__file__).with_name("killed.py")
TESTS = SCRIPT.parents[1]


def killed(what: str, number: int, folder: Path) -> dict[str, int]:
    command = [sys.executable, str(SCRIPT), what, str(number), str(shaken(0)), str(folder)]
    path = {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return json.loads(done.stdout)


def test_while_saving(times: Callable[[int, int], int], tmp_path: Path) -> None:
    left = killed("saving", times(20, 300), tmp_path)
    assert left["kills"] == times(20, 300) and left["of these after the next job"] == 0


def test_between_the_words_of_a_phrase(times: Callable[[int, int], int], tmp_path: Path) -> None:
    """Before each step of a save: six names are given in one save, and only between them words of two are beside each
    other."""
    number = times(1, 10)
    left = killed("words", number, tmp_path)
    assert left["kills"] > 40 * number and left["temporary files after the next job"] == 0
    assert 0 < left["kills that left a part of the words"] < left["kills"] / 4


def test_in_each_phase_of_a_job(times: Callable[[int, int], int], tmp_path: Path) -> None:
    number = times(2, 30)
    left = killed("jobs", number, tmp_path)
    assert left["commands given again"] == 4 * number and left["snapshots read"]


def test_what_is_resumed_ends_with_the_same_bytes(times: Callable[[int, int], int], tmp_path: Path) -> None:
    number = times(4, 40)
    left = killed("resumed", number, tmp_path)
    assert left == {"resumed to the same bytes": number, "killed again": number // 2}
