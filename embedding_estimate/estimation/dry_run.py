"""What an estimate would do: its phases, how often it runs the U-Net, and what memory it takes. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedding_estimate.estimation.listener import NOBODY, Listener
from embedding_estimate.estimation.memory import Expectation, Memory
from embedding_estimate.estimation.opening import Opening, opening
from embedding_estimate.estimation.passes import Range, Rehearsal, WithoutUNet
from embedding_estimate.estimation.trainer import interruptible
from embedding_estimate.model.host import Host
from embedding_estimate.model.meter import Meter, Passes
from embedding_estimate.objectives import preparation_of
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.plan import Phase, phases
from embedding_estimate.teaching.recall import Recall


@dataclass(frozen=True)
class PhaseWork:
    """One phase and what it costs."""

    phase: Phase
    contexts: Sequence[str]  # that it trains in
    prepare: Range
    train: Range
    memory: Memory


@dataclass(frozen=True)
class DryRun:
    """An estimate as it would run if nothing fails and nobody stops it."""

    begun: Opening
    phases: Sequence[PhaseWork]  # none where there is nothing to train
    previews: Range  # what they show of the prompt, drawn once
    measure: Range

    @property
    def prepare(self) -> Range:
        """Passes of the U-Net before the training, of all phases."""
        return sum((work.prepare for work in self.phases), Range())

    @property
    def train(self) -> Range:
        """Passes of the U-Net while training, of all phases; selection and previews included."""
        return sum((work.train for work in self.phases), self.previews)

    @property
    def memory(self) -> Memory:
        """What the phase takes that takes most."""
        return max((work.memory for work in self.phases), key=lambda memory: memory.total, default=Memory())


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

    The U-Net is run for a few latents, to see what memory its passes keep. The listener gets names and notes.
    """
    settings.check()
    stop = stop or StopToken()
    with interruptible(stop), host.borrow(stop.check) as borrowed:
        meter = Meter(WithoutUNet(borrowed))
        with meter.interruptible(stop.check):
            begun = opening(settings, meter, listener, contexts=contexts, beside=beside, recall=Recall())
            rehearsal = Rehearsal(begun, meter, contexts)
            works = [] if begun.exact is not None else _phases(begun, rehearsal, Expectation(borrowed, begun.teacher))
            return DryRun(begun, works, rehearsal.lasting, rehearsal.measuring())


def _phases(begun: Opening, rehearsal: Rehearsal, expectation: Expectation) -> list[PhaseWork]:
    works: list[PhaseWork] = []
    *before, last = phases(begun.settings)
    for phase in (*before, last):
        preparation = preparation_of(phase, begun.teacher)
        objective, prepare = rehearsal.prepared(preparation)
        step = sum(work.phase.steps for work in works)
        weight_found = any(work.phase.finds_weight for work in works)
        train = rehearsal.training(objective, step, last=phase is last, weight_found=weight_found)
        if any(work.phase.finds_words for work in works):  # which may be exact, with nothing left to train
            prepare, train = (Range(Passes(), one.most) for one in (prepare, train))
        contexts = [example.template for example in objective.trained_in()]
        memory = expectation.of(preparation, objective, rehearsal.start)
        works.append(PhaseWork(phase, contexts, prepare, train, memory))
    return works
