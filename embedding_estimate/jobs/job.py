"""What is known of one job: an estimate, a curve, a plan, or figures that are measured."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL.Image import Image

from embedding_estimate.estimation.curve import Point
from embedding_estimate.estimation.trainer import Estimate
from embedding_estimate.fidelity.previews import Preview
from embedding_estimate.jobs.readings import Reading, Readings
from embedding_estimate.progress import Progress, StopToken
from embedding_estimate.settings import Settings

State = Literal["running", "done", "failed", "dropped"]
TOO_LATE = "it was too late to drop the embedding, which is saved: delete its file if you do not want it"


@dataclass(frozen=True)
class Saved:
    """What a job left behind."""

    estimate: Estimate
    paths: Sequence[Path]  # of the embedding's words
    pictures: Mapping[str, Sequence[Image]]  # same-seed images by row of the report; empty where there are none
    report: Path | None  # None where it could not be saved
    seconds: float

    @property
    def path(self) -> Path:
        """The file of the first word, which is the embedding's own where there is one."""
        return self.paths[0]


@dataclass
class Job:
    """An estimate under way or over. Its worker writes, everybody reads."""

    id: str
    settings: Settings
    stop: StopToken = field(default_factory=StopToken)
    state: State = "running"
    progress: Progress | None = None  # None before the model is there
    curve: Readings = field(default_factory=Readings)
    steps: int = 0  # that the curve goes up to
    preview: Preview | None = None  # the latest
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # why it failed, one line each
    trained: Sequence[Path] = ()  # the embedding's files, from when they are there to be measured
    typed: str = ""  # what is typed for these files
    figures: dict[str, float | None] = field(default_factory=dict)  # of `Fidelity` by name, as they are measured
    saved: Saved | None = None
    phase_began: float = field(default_factory=time.monotonic)
    done_before: int = 0  # when it began; a second training part counts on

    def follow(self, progress: Progress) -> None:
        if self.progress is None or progress.phase != self.progress.phase:
            self.phase_began, self.done_before = time.monotonic(), progress.done - 1
        if progress.loss is not None and progress.explained is not None:
            self.curve.add(progress.stretch, Reading(progress.done, progress.loss, progress.explained))
            self.steps = progress.total
        self.progress = progress

    def note(self, lines: Iterable[str]) -> None:
        """Adds notes, those that are there already left out."""
        self.notes += [line for line in lines if line not in self.notes]

    def show(self, preview: Preview) -> None:
        self.preview = preview

    def interrupt(self, *, save: bool) -> None:
        """Asks it to stop, if it is not over. A note says where it is too late to drop the embedding."""
        self.stop.stop(save=save)
        if self.stop.closed and self.state == "running" and self.trained and not save:
            self.note([TOO_LATE])

    @property
    def title(self) -> str:
        return self.settings.name

    @property
    def seconds_left(self) -> float | None:
        """Of the phase it is in; None while that cannot be told."""
        if self.state != "running" or self.progress is None or not self.progress.done:
            return None
        passed, done = time.monotonic() - self.phase_began, self.progress.done - self.done_before
        return passed * (self.progress.total - self.progress.done) / max(done, 1)


@dataclass
class Measuring(Job):
    """The full figures of an embedding that another job has saved. It saves no embedding."""


@dataclass
class Curve(Job):
    """Estimates with one number of vectors after the other, for their figures. Saves none of them."""

    numbers: Sequence[int] = ()  # empty before the model is there
    points: list[Point] = field(default_factory=list)  # of the first numbers

    @property
    def title(self) -> str:
        return "the number of tokens"


@dataclass
class Plan(Job):
    """What an estimate would take. Nothing is trained or saved."""

    facts: dict[str, Any] = field(default_factory=dict)  # of `summary.of_plan`; empty until it is over

    @property
    def title(self) -> str:
        return "the plan"
