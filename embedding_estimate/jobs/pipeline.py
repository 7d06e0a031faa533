"""An estimate that is saved: the same for the command line, the tab and the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from embedding_estimate.errors import Interrupted
from embedding_estimate.estimation import trainer
from embedding_estimate.estimation.dry_run import within_seconds
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.estimation.trainer import Estimate
from embedding_estimate.fidelity.previews import Preview, Previews
from embedding_estimate.fidelity.protocol import Images, OnFigures
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.model.host import BorrowedModel, Host
from embedding_estimate.progress import OnProgress, StopToken
from embedding_estimate.reports import report
from embedding_estimate.settings import QUICK, QUICK_WITH_IMAGES, Settings
from embedding_estimate.storage import saving
from embedding_estimate.storage.resuming import RollingState
from embedding_estimate.storage.snapshots import Snapshots
from embedding_estimate.teaching.recall import Recall


def without_hidden_images(settings: Settings, draws_report: bool) -> Settings:
    """The settings without the images of quick figures where no report shows them."""
    hidden = not draws_report and settings.measure_used == QUICK_WITH_IMAGES
    return replace(settings, measure=QUICK) if hidden else settings


@dataclass(frozen=True)
class Made:
    """An estimate and its files."""

    estimate: Estimate
    paths: Sequence[Path]  # of the embedding's words
    pictures: Mapping[str, Sequence[Image]]  # same-seed images by row of the report; empty where there are none
    report: Image | None  # figures, curves and images as one picture, where it was asked for
    seconds: float


@dataclass(frozen=True)
class Pipeline:
    """From settings to the files in a folder."""

    settings: Settings
    folder: Path
    stop: StopToken
    snapshots: Snapshots
    on_note: Callable[[str], None]  # what comes up on the way
    on_notes: Callable[[Sequence[str]], None]  # what is known before the work
    on_progress: OnProgress
    on_saved: Callable[[Embedding, Sequence[Path]], None]  # the embedding is there, and not measured yet
    on_figures: OnFigures = lambda figures: None  # each as soon as it is measured
    on_preview: Callable[[Preview], None] | None = None  # None: previews are drawn beside the snapshots
    tree: Path | None = None  # that names have to be new in, where the folder lies deeper
    draws_report: bool = True
    recall: Recall | None = None  # that of `trainer.estimate`
    host_options: Mapping[str, Any] = field(default_factory=dict)  # JSON values that a state keeps for who resumes it
    clock: Callable[[], float] = time.monotonic  # of the states to resume from

    def run(
        self, host: Host, *, contexts: Sequence[str] = (), beside: Sequence[str] = (), state: Tree | None = None
    ) -> Made:
        """Estimates and saves; `contexts`, `beside` and `state` are those of `trainer.estimate`.

        Raises what `trainer.estimate` raises, and `EstimateError` where nothing can be saved. A job that is dropped
        leaves the folder as it was. What else ends it before the embedding is saved leaves a state to resume from.
        """
        started = time.monotonic()
        chosen = within_seconds(
            self.settings,
            host,
            Listener(on_notes=self.on_notes, on_progress=self.on_progress),
            contexts=contexts,
            stop=self.stop,
        )
        settings = without_hidden_images(chosen, self.draws_report)
        with ExitStack() as stack:
            stack.enter_context(saving.made(self.folder))
            if settings.save_every or (settings.preview_every and self.on_preview is None):
                stack.enter_context(self.snapshots.kept(goes_on=state is not None))
            file = stack.enter_context(
                saving.Result(settings, self.folder, self.stop, tree=self.tree, on_note=self.on_note)
            )
            rolling = stack.enter_context(
                RollingState(
                    chosen,
                    {"contexts": list(contexts), "host": self.host_options},
                    self.tree or self.folder,
                    self.stop,
                    goes_on=state is not None,
                    on_note=self.on_note,
                    clock=self.clock,
                )
            )
            pictures: dict[str, list[Image]] = {}

            def decode(model: BorrowedModel, images: Images) -> None:
                if self.draws_report:
                    pictures.update(report.pictures(model, images))

            def trained(embedding: Embedding) -> None:
                paths = file.save(embedding)
                rolling.remove()
                self.on_saved(embedding, paths)

            listener = Listener(
                on_names=file.check,
                on_notes=self.on_notes,
                on_progress=self.on_progress,
                on_snapshot=self.snapshots.write,
                on_preview=Previews(self.on_preview or self.snapshots.draw, on_failure=self.on_note).make,
                on_state=rolling.offer,
                on_trained=trained,
                on_figures=self.on_figures,
                on_images=decode,
            )
            result = trainer.estimate(
                settings,
                host,
                listener,
                contexts=contexts,
                beside=beside,
                stop=self.stop,
                recall=self.recall,
                state=state,
            )
            self._heed_a_drop()
            seconds = time.monotonic() - started
            paths = file.save(result.embedding)
            sheet = report.draw(report.of_estimate(settings, result, pictures)) if self.draws_report else None
            self.stop.close()
            self._heed_a_drop()
        return Made(result, paths, pictures, sheet, seconds)

    def _heed_a_drop(self) -> None:
        if self.stop.dropped:
            raise Interrupted("interrupted; the result was dropped")
