"""The offer to go on with an estimate that a kill or a crash has cut off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import gradio as gr

from embedding_estimate.jobs import resuming
from embedding_estimate.jobs.jobs import Jobs
from embedding_estimate.storage.resuming import CutOff
from embedding_estimate.ui import PREFIX, status
from embedding_estimate.ui.compat import QUIET


class Offer:
    """A line about the latest of them, and its buttons. While a job runs there is none."""

    def __init__(self, jobs: Jobs):
        """Makes the components within the blocks that it is called in."""
        self._jobs = jobs
        line = gr.HTML(elem_id=f"{PREFIX}cut_off")
        with gr.Row(elem_id=f"{PREFIX}cut_off_uses"):  # style.css hides it where there is no line
            self._resume = gr.Button("Resume", size="sm", elem_id=f"{PREFIX}resume")
            self._discard = gr.Button("Discard", size="sm", elem_id=f"{PREFIX}discard")
        self._name = gr.State("")  # of the line on this page, whatever another page does meanwhile
        self.shown = [line, self._name]

    def now(self) -> tuple[str, str]:
        """The values of what is `shown`."""
        latest = self._latest()
        return (said(latest), latest.name) if latest else ("", "")

    def connect(self, now: Callable[[], tuple[Any, ...]], outputs: Sequence[Any]) -> None:
        """Makes the buttons work; `outputs` are for a refusal and for what `now` returns."""

        def resume(name: str) -> tuple[Any, ...]:
            return status.refusal(lambda: resuming.resume(self._jobs, name)), *now()

        def discard(name: str) -> tuple[Any, ...]:
            return status.refusal(lambda: resuming.discard(self._jobs, name)), *now()

        self._resume.click(resume, [self._name], list(outputs), **QUIET)
        self._discard.click(discard, [self._name], list(outputs), **QUIET)

    def _latest(self) -> CutOff | None:
        job = self._jobs.latest
        if job is not None and job.state == "running":
            return None
        return next(iter(resuming.cut_off(self._jobs)), None)


def said(one: CutOff) -> str:
    """The line, as HTML."""
    when = f"{one.date:%Y-%m-%d %H:%M}"
    offer = f"An estimate of {one.name} was cut off at step {one.step} of {one.steps} on {when}."
    return f"<p>{escape(one.problem or offer)}</p>"
