"""Errors of the disk, of memory and of the model, at any of their calls in a job."""

from __future__ import annotations

import errno
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shaking import shaken
from toy import ToyHost

from embedding_estimate.files.embedding import Embedding, read, write
from embedding_estimate.jobs.job import Job
from embedding_estimate.jobs.jobs import Jobs
from embedding_estimate.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("brief")]

DISK = ((Path, "open"), (Path, "replace"), (Path, "write_bytes"), (os, "fsync"))
MODEL = ("denoise", "encode", "encode_vectors", "decode", "sample", "token_vectors")
ERRORS: dict[str, Callable[[], Exception]] = {
    "a full disk": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "no memory": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory"),
    "an error of the device": lambda: RuntimeError("CUDA error: an illegal memory access was encountered"),
    "a bug": lambda: TypeError("unsupported operand"),
}
MOST = {"denoise": 120, "encode": 20, "encode_vectors": 120, "decode": 3, "sample": 12, "token_vectors": 6}  # calls


def failing_at(real: Callable[..., Any], number: int, error: Exception) -> Callable[..., Any]:
    """The same, but its n-th call fails and, as with a full disk or a broken device, each one after that."""
    calls = iter(range(number))

    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls, None) is None:
            raise error
        return real(*arguments, **options)

    return call


def run(folder: Path, host: ToyHost, **settings: Any) -> Job:
    jobs = Jobs(lambda settings: host, lambda: folder / "embeddings", lambda: folder / "reports")
    values = {"text": "red (circle:1.8)", "name": "it", "tokens": 2, "steps": 4, "learning_steps": 12, "save_every": 4}
    job = jobs.start(Settings(**values | {"overwrite": True} | settings))
    while job.state == "running":
        time.sleep(0.005)
    return job


def test_a_job_ends_in_a_line_and_loses_nothing(
    times: Callable[[int, int], int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draws, ended = random.Random(shaken(0)), Counter[str]()
    for number in range(times(24, 400)):
        folder, host = tmp_path / str(number), ToyHost()
        (folder / "embeddings").mkdir(parents=True)
        file = folder / "embeddings" / "it.safetensors"
        write(Embedding("it", {"clip_l": torch.zeros(1, 6)}), file)
        what = draws.choice(list(ERRORS))
        part = draws.choice(["Attention", "U-Net", "Transformer", "Attention + U-Net"])
        caplog.clear()
        with pytest.MonkeyPatch.context() as patch:
            if what == "a full disk":
                owner, name = draws.choice(DISK)
                patch.setattr(owner, name, failing_at(getattr(owner, name), draws.randrange(12), ERRORS[what]()))
            else:
                name = draws.choice(MODEL)
                failing = failing_at(getattr(host.model, name), draws.randrange(MOST[name]), ERRORS[what]())
                patch.setattr(host.model, name, failing)
            try:
                job = run(folder, host, part=part, measure=draws.choice(["Quick with images", "Full"]))
            except Exception as error:  # before the job: the folder cannot be written
                assert what == "a full disk", error
                ended["refused before the work"] += 1
                continue
        assert not host.lent and not list(folder.rglob("*.tmp"))
        assert job.state in ("done", "failed") and all("\n" not in line for line in [*job.notes, *job.problems])
        left = read(file)  # the old one or the new one, whole
        assert left.tokens == (2 if job.trained or job.saved else 1)
        if job.curve and what != "a full disk":
            assert left.tokens == 2, "what was trained is saved whatever the model does"
        said = " ".join([*job.notes, *job.problems])
        if what in ("an error of the device", "a bug") and type(ERRORS[what]()).__name__ in said:
            assert any(record.exc_info for record in caplog.records), "a bug is logged with its traceback"
        ended[f"{what}: {job.state}"] += 1
    print(dict(ended))
