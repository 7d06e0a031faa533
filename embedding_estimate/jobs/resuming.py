"""Estimates that were cut off, as a tab and an API offer them."""

from __future__ import annotations

from embedding_estimate.errors import Busy
from embedding_estimate.jobs.job import Job
from embedding_estimate.jobs.jobs import Jobs
from embedding_estimate.storage import resuming
from embedding_estimate.storage.resuming import CutOff


def cut_off(jobs: Jobs) -> list[CutOff]:
    """Those that can go on, the latest first; without the one that runs."""
    running = _running(jobs)
    return [one for one in resuming.cut_off(jobs.tree()) if one.name != running]


def resume(jobs: Jobs, name: str) -> Job:
    """Goes on with the estimate of that name, and returns at once.

    Raises `EmbeddingError` if none was cut off or its state cannot be read, `Busy` while it runs, and what `Jobs.start`
    raises.
    """
    _refuse_while_it_runs(jobs, name)
    state = resuming.find(jobs.tree(), name).read()
    return jobs.start(resuming.settings_of(state), state)


def discard(jobs: Jobs, name: str) -> None:
    """Removes the state of the estimate of that name.

    Raises `EmbeddingError` if none was cut off or it cannot be removed, and `Busy` while it runs.
    """
    _refuse_while_it_runs(jobs, name)
    resuming.find(jobs.tree(), name).discard()


def _refuse_while_it_runs(jobs: Jobs, name: str) -> None:
    if name == _running(jobs):
        raise Busy(f"{name} is being estimated: wait until it is done, or interrupt it")


def _running(jobs: Jobs) -> str | None:
    last = jobs.latest
    return last.settings.name if last and last.state == "running" else None
