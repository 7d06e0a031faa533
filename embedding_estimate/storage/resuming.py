"""The states from which estimates that were cut off can go on: one file for each, `NAME.resume.safetensors`.

They lie beside the snapshots, in TREE-steps. A kill or a crash leaves the last state of a job. A job whose embedding is
saved, or that is discarded, removes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

from filelock import Timeout

from embedding_estimate.errors import EmbeddingError, quoted
from embedding_estimate.files import names, tensor_tree
from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.files.whole_file import remove_abandoned, write_whole
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage import saving
from embedding_estimate.storage.at_work import NO_LOCKS, at_work, lock_of

SUFFIX = ".resume.safetensors"
FORMAT = 2
BUSY = "{} is being estimated by another program: wait until it is done, or interrupt it there"
EVERY = 30.0  # seconds from one state to the next, at least
LOOK = 1.0  # seconds: who only looks whether a program is at work has its lock for less
SHARE = 0.05  # of the time that states may take


class RollingState:
    """The state of a running job, written anew now and then.

    As a context manager it removes the state of a job that is discarded, whatever ended it, and lets no other program
    estimate under this name meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        beside: Tree,
        tree: Path,
        stop: StopToken,
        *,
        goes_on: bool = False,
        on_note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ):
        """`beside` is what else has to be known to go on. The job `goes_on` from a state that is there.

        `on_note` gets one line if states cannot be written; the job goes on.

        A job that keeps its prompt out of its file has no state, because it would have to hold the prompt.
        """
        self._settings = settings
        self._beside = beside
        self._on_note = on_note
        self._clock = clock
        self._path = _folder(tree) / f"{settings.name}{SUFFIX}"
        self._due = clock() + EVERY
        self._noted = False
        self._stop = stop
        self._lock = lock_of(self._path)
        self._is_there = goes_on  # this job's own, and not one that an earlier job of this name has left

    def __enter__(self) -> RollingState:
        """Raises `EmbeddingError` where another program is at work on it."""
        try:
            self._lock.acquire(timeout=LOOK)
        except Timeout:
            raise EmbeddingError(BUSY.format(self._settings.name)) from None
        except NO_LOCKS:
            pass
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._stop.dropped and self._is_there:
            self.remove()
        self._lock.release()

    def offer(self, collect: Callable[[], Tree]) -> None:
        """Writes the state that `collect` returns, if it is time."""
        started = self._clock()
        if started < self._due or self._settings.private:
            return
        tree = {"format": FORMAT, "settings": self._settings.to_dict(), **self._beside, **collect()}
        try:
            self._write(tensor_tree.packed(tree))
            self._is_there = True
        except EmbeddingError as error:
            if not self._noted:
                self._on_note(f"no state to resume from: {error}")
            self._noted = True
        self._due = self._clock() + max(EVERY, (self._clock() - started) / SHARE)

    def _write(self, data: bytes) -> None:
        folder = self._path.parent
        with saving.creating(folder):
            folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        write_whole(self._path, data)

    def remove(self) -> None:
        """Removes the state of this name, whichever job wrote it. A note says so if that fails."""
        try:
            _remove(self._path)
        except EmbeddingError as error:
            self._on_note(str(error))


@dataclass(frozen=True)
class CutOff:
    """An estimate that was cut off, as its file tells."""

    path: Path
    step: int
    steps: int  # of all phases
    date: datetime  # of the state
    problem: str = ""  # why it cannot go on

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(SUFFIX)

    def read(self) -> Tree:
        """The state. Raises `EmbeddingError`, with one line, if it cannot be read or comes from a newer version."""
        try:
            tree = tensor_tree.unpacked(self.path.read_bytes())
        except (OSError, *tensor_tree.REFUSALS) as error:
            raise EmbeddingError(_damaged(self.path)) from error
        if tree["format"] != FORMAT:
            raise EmbeddingError(
                f"{self.path}: its format is {quoted(tree['format'])}, and this version reads {FORMAT}; "
                "resume with the version that wrote it, or delete it"
            )
        return tree

    def discard(self) -> None:
        """Removes the file. Raises `EmbeddingError` if that fails."""
        _remove(self.path)


def settings_of(state: Tree) -> Settings:
    """The settings in a state, checked. Raises `SettingsError` with every problem."""
    settings = Settings.from_mapping(state["settings"])
    settings.check()
    return settings


def cut_off(tree: Path) -> list[CutOff]:
    """The estimates of an embeddings folder that were cut off, the latest first; none that a program is at work on."""
    found = []
    for path in _folder(tree).glob(f"*{SUFFIX}"):
        if at_work(path):
            continue
        with suppress(FileNotFoundError):  # its job has ended since
            found.append(_described(path))
    return sorted(found, key=lambda one: one.date, reverse=True)


def find(tree: Path, name: str) -> CutOff:
    """The estimate of that name. Raises `EmbeddingError` that lists those there are if there is none."""
    there = {one.name: one for one in cut_off(tree)}
    if name in there:
        return there[name]
    if not names.problems(name) and at_work(_folder(tree) / f"{name}{SUFFIX}"):
        raise EmbeddingError(BUSY.format(name))
    choice = f"choose from {', '.join(there)}" if there else f"{_folder(tree)} has none"
    raise EmbeddingError(f"{quoted(name)}: no estimate of this name was cut off; {choice}")


def _folder(tree: Path) -> Path:
    return saving.beside(tree.resolve(), "steps")


def _described(path: Path) -> CutOff:
    date = datetime.fromtimestamp(path.stat().st_mtime)
    try:
        outline = tensor_tree.outline(path)
        return CutOff(path, int(outline["step"]), int(outline["steps"]), date)
    except (OSError, *tensor_tree.REFUSALS):
        return CutOff(path, 0, 0, date, _damaged(path))


def _damaged(path: Path) -> str:
    return f"{path}: cannot be read or is damaged; discard it, and estimate again"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise EmbeddingError(f"{path}: cannot be removed ({error.strerror or error}); delete it") from error
    with suppress(OSError):  # there are snapshots, or it was never made
        path.parent.rmdir()
