"""One estimate, curve or plan at a time, in a thread of its own, for a tab or an API that looks in now and then."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from embedding_estimate.checks import advice
from embedding_estimate.errors import Busy, EstimateError, Interrupted, SettingsError, failures
from embedding_estimate.errors.out_of_memory import ADVICE, ran_out
from embedding_estimate.estimation import summary
from embedding_estimate.estimation.curve import advised, curve, numbers, variants
from embedding_estimate.estimation.dry_run import dry_run
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.files import names
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.files.free_name import free_name
from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.jobs.job import Curve, Job, Measuring, Plan, Saved
from embedding_estimate.jobs.measuring import measure_fully
from embedding_estimate.jobs.pipeline import Made, Pipeline
from embedding_estimate.model.host import Host
from embedding_estimate.progress import OnProgress, Progress, Stopped
from embedding_estimate.reports import report
from embedding_estimate.settings import Settings
from embedding_estimate.storage import saving
from embedding_estimate.storage.phrases import recorded_phrase
from embedding_estimate.storage.snapshots import Snapshots
from embedding_estimate.teaching.recall import Recall

logger = logging.getLogger(__name__)

KEPT = 20  # jobs that can still be asked for
MAKE_ROOM = (Measuring, Plan)  # for any other job
UNNAMED = "unnamed"  # stands for a name that is not typed yet
EXPLORED: dict[str, Any] = {"name": "curve", "tokens": 1}  # what a curve has, whatever was asked for


class Jobs:
    """Starts jobs and remembers the last ones. Asked from any thread."""

    def __init__(
        self,
        host: Callable[[Settings], Host],
        embeddings: Callable[[], Path],
        reports: Callable[[], Path],
        *,
        tree: Callable[[], Path] | None = None,
        read: Callable[[Settings], Settings] = lambda settings: settings,
        on_saved: Callable[[Job], None] = lambda job: None,
    ):
        """The folders are asked for at the start of each job; reports must not lie among the embeddings.

        `tree` is the folder that the host reads embeddings from, where the one to save in lies deeper. `read` is how
        the host takes settings, before they are checked. `on_saved` gets each job that has written under its name once
        it is over: without `saved` where it was dropped, and the name is again what it was, or failed.
        """
        self._host = host
        self._embeddings = embeddings
        self._reports = reports
        self.tree = tree or embeddings
        self._read = read
        self._on_saved = on_saved
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._recall = Recall()

    @property
    def latest(self) -> Job | None:
        return next(reversed(self._jobs.values()), None)

    def find(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def start(self, settings: Settings, state: Tree | None = None) -> Job:
        """Starts a job, or goes on with one of these settings from a state, and returns at once.

        Raises `SettingsError` with every problem, `NameTaken`, `EmbeddingError` for a folder that cannot be written,
        `Busy` while another job runs.
        """
        settings = self._read(settings)
        settings.check()
        with self._lock:
            self._refuse_a_second()
            folder, tree = self._embeddings(), self.tree()
            with saving.made(folder):
                saving.check_names(settings, folder, tree)
            job = Job(secrets.token_hex(8), settings, notes=advice.of_settings(settings))
            self._begin(job, lambda: self._save(job, folder, tree, state))
        return job

    def name_problems(self, name: str, file_format: str, overwrite: bool) -> list[str]:
        """Why nothing could be saved by this name now; the folder is looked through, no model is asked."""
        folder = self._embeddings()
        if not folder.is_dir():
            return []  # it is made when a job starts
        try:
            names.target(name, folder, extension=f".{file_format}", overwrite=overwrite, tree=self.tree())
        except EstimateError as error:
            return str(error).splitlines()
        return []

    def free_name(self, text: str) -> str:
        """A name for an embedding of this text that is free now."""
        return free_name(text, [self.tree()])

    def explore(self, settings: Settings) -> Curve:
        """Starts a curve and returns at once. The settings' name and number of tokens do not matter.

        Raises `SettingsError` with every problem, `Busy` while another job runs.
        """
        settings = self._read(replace(settings, **EXPLORED))
        variants(settings, [1])
        with self._lock:
            self._refuse_a_second()
            curve = Curve(secrets.token_hex(8), settings, notes=advice.of_settings(advised(settings)))
            self._begin(curve, lambda: self._explore(curve))
        return curve

    def plan(self, settings: Settings) -> Plan:
        """Starts to find out what an estimate would take, and returns at once. The settings may have no name.

        Raises `SettingsError` with every problem, `Busy` while another job runs.
        """
        settings = self._read(replace(settings, name=settings.name or UNNAMED))
        settings.check()
        with self._lock:
            self._refuse_a_second()
            plan = Plan(secrets.token_hex(8), settings, notes=advice.of_settings(settings))
            self._begin(plan, lambda: self._foresee(plan))
        return plan

    def measure(self, job_id: str) -> Measuring:
        """Starts to measure fully what a job has saved, and returns at once. Gives way to whoever wants the model.

        Raises `EstimateError` for a job that has saved nothing, `Busy` while another job runs.
        """
        job = self.find(job_id)
        if job is None or job.saved is None:
            raise EstimateError("there is no embedding to measure: estimate one first, or use compare")
        with self._lock:
            self._refuse_a_second()
            measuring = Measuring(
                secrets.token_hex(8),
                job.settings,
                curve=job.curve,
                steps=job.steps,
                preview=job.preview,
                trained=job.trained,
                typed=job.typed,
            )
            self._begin(measuring, partial(self._measure, measuring, job.saved))
        return measuring

    def _refuse_a_second(self) -> None:
        """Raises `Busy` while a job runs that makes no room."""
        last = self.latest
        if last and last.state == "running" and not isinstance(last, MAKE_ROOM):
            raise Busy(f"{last.title} is being estimated: wait until it is done, or interrupt it")

    def _begin(self, job: Job, work: Callable[[], None]) -> None:
        if isinstance(self.latest, MAKE_ROOM):  # only here, where nothing can refuse the new job any more
            self.latest.stop.stop(save=True)
        self._jobs[job.id] = job
        for old in list(self._jobs)[:-KEPT]:
            del self._jobs[old]
        threading.Thread(target=self._work, args=(job, work), name="embedding-estimate", daemon=True).start()

    def _work(self, job: Job, work: Callable[[], None]) -> None:
        try:
            work()
            job.state = "done"
        except Interrupted as error:
            job.problems, job.state = [str(error)], "dropped"
        except SettingsError as error:
            job.problems, job.state = error.problems, "failed"
        except EstimateError as error:
            job.problems, job.state = [str(error)], "failed"
        except Exception as error:
            logger.exception("the estimate of %s failed", job.settings.name)
            if job.trained and not job.stop.dropped:
                job.notes.append(f"{saving.listed(job.trained)}: was saved before that, without figures")
            job.problems, job.state = [_reason(error)], "failed"
        finally:
            job.stop.close()

    def _save(self, job: Job, folder: Path, tree: Path, state: Tree | None) -> None:
        try:
            job.saved = self._estimate(job, folder, tree, state)
            job.note(job.saved.estimate.notes)
        finally:
            if job.trained:
                self._on_saved(job)

    def _measure(self, job: Measuring, known: Saved) -> None:
        """Whatever ends it, what was known before stays, to be measured again."""
        saved, settings = known, job.settings
        try:
            host = self._host(settings)
            listener = Listener(on_progress=_listener(job, host), on_figures=job.figures.update)
            estimate, pictures = measure_fully(settings, known.estimate, host, listener, job.stop, self._recall)
            sheet = report.draw(report.of_estimate(settings, estimate, pictures))
            made = Made(estimate, known.paths, pictures, sheet, known.seconds)
            saved = Saved(estimate, known.paths, pictures, self._put(job, made), known.seconds)
            job.note(estimate.notes)
        except Stopped:
            job.note(["the full measurement was interrupted: these are the figures from before"])
        finally:
            job.saved = saved

    def _foresee(self, job: Plan) -> None:
        plan = dry_run(job.settings, self._host(job.settings), Listener(on_notes=job.note), stop=job.stop)
        job.facts = summary.of_plan(plan)

    def _explore(self, job: Curve) -> None:
        host = self._host(job.settings)
        job.numbers = numbers(job.settings, host, job.stop)
        tried = curve(
            job.settings,
            host,
            job.numbers,
            on_notes=job.note,
            on_progress=lambda _: _listener(job, host),
            stop=job.stop,
            recall=self._recall,
        )
        for point in tried:
            job.points.append(point)
        if not job.points:
            raise Interrupted("interrupted before there was anything to show")

    def _estimate(self, job: Job, folder: Path, tree: Path, state: Tree | None) -> Saved:
        def saved(embedding: Embedding, paths: Sequence[Path]) -> None:
            job.typed, job.trained = recorded_phrase(embedding, embedding.provenance["typed_weight"]), paths

        host = self._host(job.settings)
        made = Pipeline(
            settings=job.settings,
            folder=folder,
            tree=tree,
            stop=job.stop,
            snapshots=Snapshots(job.settings, tree, job.stop, on_note=job.notes.append),
            on_note=job.notes.append,
            on_notes=job.note,
            on_progress=_listener(job, host),
            on_saved=saved,
            on_figures=job.figures.update,
            on_preview=job.show,
            recall=self._recall,
        ).run(host, contexts=state["contexts"] if state else (), state=state)
        job.trained = made.paths
        return Saved(made.estimate, made.paths, made.pictures, self._put(job, made), made.seconds)

    def _put(self, job: Job, made: Made) -> Path | None:
        """The file of the report; None where it could not be saved, for the embedding is safe, which is what counts."""
        if made.report is None:
            return None
        folder, name = self._reports(), f"{made.estimate.embedding.name}.png"
        try:
            if not saving.ours(folder / name):
                raise EstimateError(f"{folder / name} is a picture of yours: move it, or choose another name")
            with saving.made(folder):
                report.save(made.report, folder / name)
            return folder / name
        except EstimateError as error:
            job.notes.append(f"the report could not be saved: {error}")
            return None


def _listener(job: Job, host: Host) -> OnProgress:
    """Tells the job and the host, whose own button may stop it."""

    def on_progress(progress: Progress) -> None:
        job.follow(progress)
        if host.show(progress.phase, progress.done, progress.total):
            job.stop.stop(save=True)

    return on_progress


def _reason(error: Exception) -> str:
    """One line for what no part of this program raised on purpose."""
    return ADVICE if ran_out(error) else failures.one_line(error)
