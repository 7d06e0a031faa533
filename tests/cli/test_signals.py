"""Signals that a real process gets, from a terminal that closes or a service manager."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from embedding_estimate.files.embedding import read

pytestmark = pytest.mark.slow

ESTIMATE = ("estimate", "(red:1.5) circle", "--name", "it", "--tokens", "2", "--learning-steps", "100000")
STEPS = ("--save-every", "10")


def started(folder: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "embedding_estimate", *arguments]
    return subprocess.Popen(command, cwd=folder, **options)


def first_snapshot(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Waits until there is something to lose."""
    while not list(folder.glob("embeddings-steps/it/*.safetensors")):
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_however_often_it_comes(tmp_path: Path, number: signal.Signals) -> None:
    process = started(tmp_path, *ESTIMATE, *STEPS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    first_snapshot(process, tmp_path)
    process.send_signal(number)
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == 130
    assert read(tmp_path / "embeddings" / "it.safetensors").provenance["stopped"] == "interrupted"
    assert b"it.safetensors: 2 vectors" in out
    assert list(tmp_path.glob("embeddings-steps/it/it-000010.safetensors"))


def test_a_terminal_that_closes_saves(tmp_path: Path) -> None:
    """All that is printed from then on is an error of the terminal's."""
    ours, theirs = pty.openpty()
    process = started(tmp_path, *ESTIMATE, *STEPS, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    first_snapshot(process, tmp_path)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert process.wait() == 130
    assert read(tmp_path / "embeddings" / "it.safetensors").provenance["stopped"] == "interrupted"


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    process = started(
        tmp_path,
        *(*ESTIMATE[:-1], "40", "--measure", "Nothing", "--save-every", "5"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    first_snapshot(process, tmp_path)
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert process.returncode == 0
    assert read(tmp_path / "embeddings" / "it.safetensors").provenance["stopped"] == "done"


SERVING = """
import sys

from embedding_estimate import app
from embedding_estimate.cli import main
from embedding_estimate.settings import Settings

real = app.serve

def serve(place, **options):
    job = Settings(text="(red:1.5) circle", name="it", tokens=2, learning_steps=100_000, save_every=10)
    place.jobs.start(job)
    real(place, **options)

app.serve = serve
main(["ui", "--no-browser", "--port", sys.argv[1]])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_tab_saves_what_its_job_has_reached(tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-c", SERVING, str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    first_snapshot(process, tmp_path)
    process.send_signal(number)
    assert process.wait() == 130
    assert read(tmp_path / "embeddings" / "it.safetensors").provenance["stopped"] == "interrupted"
