"""What an estimate would do: its phases, how often it runs the U-Net, how long that takes and in how much memory.

Nothing is trained. With `Settings.seconds`, the effort of an estimate is chosen by such plans.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from embedding_estimate.estimation.duration import Duration, Speed, clocked, training
from embedding_estimate.estimation.listener import NOBODY, Listener
from embedding_estimate.estimation.memory import Expectation, Memory
from embedding_estimate.estimation.opening import Opening, opening
from embedding_estimate.estimation.passes import Range, Rehearsal, WithoutUNet
from embedding_estimate.estimation.trainer import interruptible
from embedding_estimate.model.host import Host
from embedding_estimate.model.meter import Meter, Passes
from embedding_estimate.objectives import preparation_of
from embedding_estimate.progress import Progress, StopToken
from embedding_estimate.settings import EFFORTS, Settings
from embedding_estimate.teaching.plan import Phase, phases
from embedding_estimate.teaching.recall import Recall


@dataclass(frozen=True)
class PhaseWork:
    """One phase and what it costs."""

    phase: Phase
    contexts: Sequence[str]  # that it trains in
    stages: Sequence[tuple[int, int]]  # learning steps, and the number of contexts in them
    prepare: Range
    train: Range
    memory: Memory
    duration: Duration


@dataclass(frozen=True)
class DryRun:
    """An estimate as it would run if nothing fails and nobody stops it."""

    begun: Opening
    phases: Sequence[PhaseWork]  # none where there is nothing to train
    previews: Range  # what they show of the prompt, drawn once
    measure: Range
    beside_phases: Duration  # until the first one begins, of those previews, and behind the last

    @property
    def prepare(self) -> Range:
        """Passes of the U-Net before the training, of all phases."""
        return sum((work.prepare for work in self.phases), Range())

    @property
    def train(self) -> Range:
        """Passes of the U-Net while training, of all phases; selection and previews included."""
        return sum((work.train for work in self.phases), self.previews)

    @property
    def stages(self) -> dict[str, Range]:
        """Passes of the U-Net by stage."""
        return {"prepare": self.prepare, "train": self.train, "measure": self.measure}

    @property
    def memory(self) -> Memory:
        """What the phase takes that takes most."""
        return max((work.memory for work in self.phases), key=lambda memory: memory.total, default=Memory())

    @property
    def duration(self) -> Duration:
        """What it takes on this machine, with nothing else beside."""
        return sum((work.duration for work in self.phases), self.beside_phases)


def dry_run(
    settings: Settings,
    host: Host,
    listener: Listener = NOBODY,
    *,
    contexts: Sequence[str] = (),
    beside: Sequence[str] = (),
    stop: StopToken | None = None,
) -> DryRun:
    """The plan of `trainer.estimate` with the same arguments, which raises what that raises before it trains.

    The U-Net is run for a few latents, to see how long its passes take and what memory they keep. The listener gets
    names and notes.
    """
    settings.check()
    stop = stop or StopToken()
    settings = within_seconds(settings, host, listener, contexts=contexts, stop=stop)
    with interruptible(stop), host.borrow(stop.check) as borrowed:
        meter = Meter(WithoutUNet(borrowed))
        with meter.interruptible(stop.check):
            begun, reading = clocked(
                lambda: opening(settings, meter, listener, contexts=contexts, beside=beside, recall=Recall()),
                meter.device,
            )
            rehearsal = Rehearsal(begun, meter, contexts)
            works: list[PhaseWork] = []
            speed = Speed.of(borrowed, begun.teacher, begun.settings.batch)
            if begun.exact is None:
                works = _phases(begun, rehearsal, Expectation(borrowed, begun.teacher), speed)
            ways, seconds = clocked(rehearsal.measurings, meter.device)
            measure = Range.among(ways) if ways else Range()
            beside_phases = Duration(
                reading,
                speed.seconds(rehearsal.lasting.most),
                seconds / max(1, len(ways)) + speed.seconds(measure.most),
            )
            return DryRun(begun, works, rehearsal.lasting, measure, beside_phases)


def within_seconds(
    settings: Settings,
    host: Host,
    listener: Listener = NOBODY,
    *,
    contexts: Sequence[str] = (),
    stop: StopToken | None = None,
) -> Settings:
    """The settings with the highest effort that is expected to take no longer than `seconds`, which are 0 afterwards.

    What finding out takes counts among them. The listener gets its progress, and a note on what is expected. Raises
    what `dry_run` raises.
    """
    if not settings.seconds:
        return settings
    settings.check()
    began, left_open = time.monotonic(), replace(settings, seconds=0.0)
    seconds: dict[str, float] = {}

    def expect(effort: str) -> None:
        listener.on_progress(Progress("effort", len(seconds), 2))
        plan = dry_run(replace(left_open, effort=effort), host, contexts=contexts, stop=stop)
        seconds[effort] = time.monotonic() - began + plan.duration.total

    quick, usual, thorough = EFFORTS
    expect(usual)
    expect(thorough if seconds[usual] <= settings.seconds else quick)
    effort = next((name for name in (thorough, usual) if seconds.get(name, math.inf) <= settings.seconds), quick)
    if (takes := seconds[effort]) <= settings.seconds:
        note = f"seconds={settings.seconds:g}: effort {effort} is expected to take about {takes:.0f} s"
    else:
        note = f"seconds={settings.seconds:g}: even effort {effort} is expected to take about {takes:.0f} s"
    listener.on_notes([note])
    return replace(left_open, effort=effort)


def _phases(begun: Opening, rehearsal: Rehearsal, expectation: Expectation, speed: Speed) -> list[PhaseWork]:
    works: list[PhaseWork] = []
    *before, last = phases(begun.settings)
    for phase in (*before, last):
        preparation = preparation_of(phase, begun.teacher)
        (objective, prepare), preparing = clocked(partial(rehearsal.prepared, preparation), rehearsal.meter.device)
        step = sum(work.phase.steps for work in works)
        weight_found = any(work.phase.finds_weight for work in works)
        train = rehearsal.training(objective, step, last=phase is last, weight_found=weight_found)
        if any(work.phase.finds_words for work in works):  # which may be exact, with nothing left to train
            prepare, train = (Range(Passes(), one.most) for one in (prepare, train))
        contexts = [example.template for example in objective.trained_in()]
        memory = expectation.of(preparation, objective, rehearsal.start)
        duration = Duration(
            preparing + speed.seconds(prepare.most),
            training(rehearsal, objective, train, speed),
        )
        stages = [(steps, len(stage.trained_in())) for stage, steps in objective.stages()]
        works.append(PhaseWork(phase, contexts, stages, prepare, train, memory, duration))
    return works
