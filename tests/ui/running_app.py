"""The command `embedding-estimate ui` with a tiny model, ended by Ctrl-C."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser import free_port, served
from shaking import shaken

from embedding_estimate.demo.random_models import random_model

ROOT = Path(__file__).parents[2]


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Its URL; models, embeddings and log lie in the folder."""
    port, log = free_port(), folder / "log"
    model = random_model("sd1", folder / "model", seed=shaken(0))
    options = ["--no-browser", "--port", str(port), "--out", folder / "embeddings", "--model", model]
    command = [sys.executable, "-m", "embedding_estimate", "ui", *options]
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell ignores it in the background, and children inherit
    with served(command, log, ready="is ready", patience=120, cwd=ROOT) as server:
        yield f"http://127.0.0.1:{port}/"
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
        assert "Traceback" not in log.read_text(), log.read_text()
