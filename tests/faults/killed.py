"""Processes that are killed, and what they leave: `killed.py WHAT NUMBER SEED FOLDER` prints it as JSON.

A process that has imported everything is forked for each kill. Nothing is caught in between: a file that cannot be read
afterwards ends the program with an error.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image
from toy import ToyHost

from embedding_estimate.cli import main
from embedding_estimate.cli.progress import Bars
from embedding_estimate.fidelity import among_words, protocol, quick
from embedding_estimate.files.embedding import Embedding, read, write
from embedding_estimate.files.whole_file import write_whole
from embedding_estimate.progress import Progress, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage import resuming, saving
from embedding_estimate.storage.phrases import lacks, parts_of, record_of
from embedding_estimate.teaching.words import Word
from embedding_estimate.training import handlers, name_weight

QUICK = ("--tokens", "2", "--learning-steps", "12", "--steps", "4", "--save-every", "2")
PHASES = {"prepare": 12, "weigh": 20, "train": 12, "measure": 8}  # phase -> reports of progress to choose one from


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


STEPS = ((Path, "open"), (Path, "replace"), (Path, "unlink"), (os, "fsync"), (os, "link"))  # of which a save consists
PHRASE = (Word(1.5, (0,)), Word(1.0, (1,)), Word(0.6, (2,)))
WORDS = [f"it-{letter}" for letter in "abc"]


def kill_between_words(number: int, draws: random.Random, folder: Path) -> dict[str, int]:
    """Kills a process that saves a phrase of three words and then its figures, before each of its steps in turn; every
    second time over an older phrase. `number` phrases are saved so, all over."""
    left: Counter[str] = Counter()
    for turn, overwriting in itertools.product(range(number), (False, True)):
        for step in itertools.count():
            place = folder / f"{turn}-{overwriting}-{step}"
            old, new, again = (trained_and_measured(draws.random()) for _ in range(3))
            place.mkdir()
            if overwriting:
                save(place, old)
            _, status = os.waitpid(in_a_fork(partial(save, place, new, step)), 0)
            judge(place, old if overwriting else [], new, left)
            if not os.WIFSIGNALED(status):
                assert os.WEXITSTATUS(status) == 0 and step > 20
                break
            left["kills"] += 1
            save(place, again)
            assert {file.stem: file.read_bytes() for file in place.glob("*.safetensors")} == bytes_of(again[1])
            for path in place.glob("*.tmp"):
                os.utime(path, (0, 0))
            with saving.made(place):
                left["temporary files after the next job"] += len(list(place.glob("*.tmp")))
    return left


def trained_and_measured(value: float) -> list[Embedding]:
    """A phrase as it is saved first, and with its figures."""
    vectors = {"clip_l": torch.full((3, 8), value)}
    told = {"stopped": "done", **record_of("it", PHRASE, vectors)}
    return [Embedding("it", vectors, told | {"fidelity": figures}) for figures in (None, {"explained": 1})]


def bytes_of(phrase: Embedding) -> dict[str, bytes]:
    """What the file of each word holds."""
    with TemporaryDirectory() as folder:
        for part in parts_of(phrase):
            write(part, Path(folder, f"{part.name}.safetensors"))
        return {name: Path(folder, f"{name}.safetensors").read_bytes() for name in WORDS}


def save(place: Path, phrase: list[Embedding], kill_before: int | None = None) -> None:
    """As a job does: when it is trained, and with its figures, over what is there. The process is killed before that
    step."""
    taken = itertools.count()

    def killing(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if next(taken) == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return step

    settings = Settings(text="a", name="it", words="One per weight", overwrite=any(place.iterdir()))
    with ExitStack() as stack:
        file = stack.enter_context(saving.Result(settings, place, StopToken(), on_note=lambda line: None))
        if kill_before is not None:
            for owner, name in STEPS:
                stack.enter_context(patch.object(owner, name, killing(getattr(owner, name))))
        for embedding in phrase:
            file.save(embedding)


def judge(place: Path, old: list[Embedding], new: list[Embedding], left: Counter[str]) -> None:
    """Every file is whole, none of the old ones is lost, and each tells what is missing."""
    was = bytes_of(old[1]) if old else {}
    trained, measured = map(bytes_of, new)
    found = {file.stem: file.read_bytes() for file in place.glob("*.safetensors")}
    of_new = [name for name, data in found.items() if data in (trained[name], measured[name])]
    of_old = [name for name, data in found.items() if data == was.get(name)]
    assert sorted(of_new + of_old) == sorted(found)
    assert not old or sorted(found) == WORDS
    for name in found:
        file = place / f"{name}.safetensors"
        strangers = of_old if name in of_new else of_new
        missing = [f"{word}.safetensors is not in the same folder; put it there" for word in WORDS if word not in found]
        others = [f"{word}.safetensors comes from another estimate; estimate them again" for word in sorted(strangers)]
        assert lacks(read(file), file) == sorted(missing + others)
    mixed = bool(of_new) and len(of_new) < len(WORDS)
    left["kills that left a part of the words"] += mixed
    left["temporary files left"] += len(list(place.glob("*.tmp")))


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


def kill_and_resume(number: int, draws: random.Random, folder: Path) -> dict[str, int]:
    """Kills commands in their training, resumes them, kills every second one again, and compares their files with one
    that was not disturbed."""
    quicken()
    resuming.EVERY, resuming.SHARE = 0.0, math.inf  # a state behind each step
    left: Counter[str] = Counter()
    whole = bytes_of_a_job(folder / "whole")
    for turn in range(number):
        place = folder / str(turn)
        place.mkdir()
        _, status = os.waitpid(in_a_fork(partial(estimate, place, [*QUICK], "train", draws.randrange(1, 12))), 0)
        assert os.WIFSIGNALED(status)
        if turn % 2:
            os.waitpid(in_a_fork(partial(estimate, place, ["--resume", "it"], "prepare", draws.randrange(6))), 0)
            left["killed again"] += 1
        states = list(place.glob("embeddings-steps/*.resume.safetensors"))
        assert len(states) == 1 and not list(place.glob("embeddings/*"))
        _, status = os.waitpid(in_a_fork(partial(estimate, place, ["--resume", "it"])), 0)
        assert status == 0 and (place / "embeddings" / "it.safetensors").read_bytes() == whole
        assert not list(place.glob("embeddings-steps/*.resume.safetensors"))
        left["resumed to the same bytes"] += 1
    return left


def bytes_of_a_job(place: Path) -> bytes:
    """Of one that nothing disturbs."""
    place.mkdir()
    _, status = os.waitpid(in_a_fork(partial(estimate, place, [*QUICK])), 0)
    assert status == 0
    return (place / "embeddings" / "it.safetensors").read_bytes()


def quicken() -> None:
    """A host with nothing to load, few states to measure and few weights to try, and each step reported."""
    host = types.ModuleType("host")
    vars(host)["StandaloneHost"] = types.SimpleNamespace(load=lambda *args, **options: ToyHost())
    sys.modules["embedding_estimate.hosts.standalone.host"] = host
    protocol.TRAJECTORY = replace(protocol.TRAJECTORY, steps=3)
    protocol.SEEDS = protocol.SEEDS[:1]
    among_words.TRAJECTORY = replace(among_words.TRAJECTORY, steps=2)
    quick.ALONE_AT, quick.CONTEXTS_AT = (0,), (1,)
    name_weight.GRID, name_weight.TRIAL_STEPS, handlers.READ_EVERY = (0.9, 1.2), 5, 0.0


def estimate(place: Path, options: list[str], phase: str = "", at: int = 0) -> None:
    """The command, or the one that goes on with it; it kills its process at a report of the phase."""
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
    new = [] if "--resume" in options else ["red (circle:1.8)", "--name", "it"]
    main(["estimate", *new, *options], standalone_mode=False)


if __name__ == "__main__":
    what, number, seed, folder = sys.argv[1:]
    kill = {"saving": kill_while_saving, "words": kill_between_words, "jobs": kill_in_jobs, "resumed": kill_and_resume}[
        what
    ]
    print(json.dumps(kill(int(number), random.Random(int(seed)), Path(folder))))
