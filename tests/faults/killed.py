"""Processes that are killed, and what they leave: `killed.py saving|jobs NUMBER SEED FOLDER` prints it as JSON.

A process that has imported everything is forked for each kill. Nothing is caught in between: a file that cannot be read
afterwards ends the program with an error.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from PIL import Image
from toy import ToyHost

from embedding_estimate.cli import main
from embedding_estimate.cli.progress import Bars
from embedding_estimate.fidelity import among_words, protocol
from embedding_estimate.files.embedding import Embedding, read, write
from embedding_estimate.files.whole_file import write_whole
from embedding_estimate.progress import Progress
from embedding_estimate.storage import saving
from embedding_estimate.training import handlers, name_weight

QUICK = ("--tokens", "2", "--learning-steps", "12", "--steps", "4", "--save-every", "2")
PHASES = {"prepare": 12, "weigh": 20, "train": 12, "measure": 20}  # phase -> reports of progress to choose one from


def in_a_fork(work: Callable[[], None]) -> int:
    """The process id of a child that does the work and exits with 0."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child


def kill_while_saving(number: int, draws: random.Random, folder: Path) -> dict[str, int]:
    """Kills a process that writes an embedding, its card and its picture again and again."""
    file, card, picture = (folder / name for name in ("it.safetensors", "it.json", "it.preview.png"))

    def save_for_ever() -> None:
        for turn in itertools.count():
            write(Embedding("it", {"clip_l": torch.full((64, 768), float(turn))}), file, overwrite=True)
            write_whole(card, json.dumps([turn] * 10_000).encode())
            write_whole(picture, saving.png(Image.new("RGB", (64, 64), (turn % 256, 0, 0))))

    left: Counter[str] = Counter()
    for _ in range(number):
        child = in_a_fork(save_for_ever)
        while not picture.exists():
            time.sleep(0.001)
        time.sleep(draws.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        vectors = read(file).vectors["emb_params"]
        assert vectors.shape == (64, 768) and bool((vectors == vectors[0, 0]).all())
        assert len(set(json.loads(card.read_bytes()))) == 1
        Image.open(picture).load()
        left["kills"] += 1
        left["temporary files left"] = len(list(folder.glob("*.tmp")))
    for path in folder.glob("*.tmp"):
        os.utime(path, (0, 0))
    with saving.made(folder):
        left["of these after the next job"] = len(list(folder.glob("*.tmp")))
    return left


def kill_in_jobs(number: int, draws: random.Random, folder: Path) -> dict[str, int]:
    """Kills a command so many times in each phase, every second time one that overwrites, and gives it again."""
    quicken()
    left: Counter[str] = Counter()
    for phase, turn in itertools.product(PHASES, range(number)):
        place, overwriting = folder / f"{phase}-{turn}", bool(turn % 2)
        file = place / "embeddings" / "it.safetensors"
        file.parent.mkdir(parents=True)
        before = 0
        if overwriting:
            before = 1  # vector
            write(Embedding("it", {"clip_l": torch.zeros(before, 6)}), file)
        options = [*QUICK, "--typed-weight", "0" if phase == "weigh" else "1", *["--overwrite"] * overwriting]
        at = draws.randrange(PHASES[phase])
        _, status = os.waitpid(in_a_fork(partial(estimate, place, options, phase, at)), 0)
        assert os.WIFSIGNALED(status), f"{phase} has fewer than {at + 1} reports"
        left[f"killed while it did {phase}"] += 1
        assert (read(file).tokens if file.exists() else 0) == (2 if phase == "measure" else before)
        for snapshot in place.rglob("it-*.safetensors"):
            assert read(snapshot).provenance["stopped"] == "snapshot"
            left["snapshots read"] += 1
        options += ["--overwrite"] * file.exists()
        _, status = os.waitpid(in_a_fork(partial(estimate, place, options)), 0)
        assert status == 0 and read(file).provenance["fidelity"]["protocol"]
        left["commands given again"] += 1
    return left


def quicken() -> None:
    """A host with nothing to load, few states to measure and few weights to try, and each step reported."""
    host = types.ModuleType("host")
    vars(host)["StandaloneHost"] = types.SimpleNamespace(load=lambda *args, **options: ToyHost())
    sys.modules["embedding_estimate.hosts.standalone.host"] = host
    protocol.TRAJECTORY = replace(protocol.TRAJECTORY, steps=3)
    protocol.SEEDS = protocol.SEEDS[:1]
    among_words.TRAJECTORY = replace(among_words.TRAJECTORY, steps=2)
    name_weight.GRID, name_weight.TRIAL_STEPS, handlers.READ_EVERY = (0.9, 1.2), 5, 0.0


def estimate(place: Path, options: list[str], phase: str = "", at: int = 0) -> None:
    """The command; it kills its process at a report of the phase."""
    show, reports = Bars.__call__, itertools.count()

    def shown(bars: Bars, progress: Progress) -> None:
        show(bars, progress)
        if progress.phase == phase and next(reports) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    patch.object(Bars, "__call__", shown).start()  # for good: the process is a fork
    os.chdir(place)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    main(["estimate", "red (circle:1.8)", "--name", "it", *options], standalone_mode=False)


if __name__ == "__main__":
    what, number, seed, folder = sys.argv[1:]
    kill = {"saving": kill_while_saving, "jobs": kill_in_jobs}[what]
    print(json.dumps(kill(int(number), random.Random(int(seed)), Path(folder))))
