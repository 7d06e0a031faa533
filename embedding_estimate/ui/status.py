"""What is known of a job, as HTML. Everything that somebody typed is escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from embedding_estimate.errors import Busy, EstimateError, SettingsError
from embedding_estimate.estimation.curve import Point
from embedding_estimate.fidelity import wording
from embedding_estimate.jobs.job import Curve, Job, Measuring, Plan
from embedding_estimate.settings import PARAMETERS
from embedding_estimate.ui import PREFIX, chart, markup, result, word

SHOWN = 40  # letters of a prompt that was filled in
MANY = "How many tokens?"
LONG = "How long?"
ROW = "Click a row to set Tokens."
HELLO = (
    "Type a prompt as Text. It may have weights, as in (red:1.5).",
    "Type a made-up word as Name. It will stand for the prompt.",
    "Press Estimate! This page then shows what to type, and how close it comes to the prompt.",
)
EXAMPLE = "Fill in an example"
FAILED: dict[type[Job], str] = {Measuring: "could not be measured", Plan: "could not be made"}


def render(job: Job | None, folder: str, in_webui: bool) -> str:
    """The state of the latest job; `folder` is where embeddings go."""
    if job is None:
        return markup.section("idle", _hello(folder))
    name, notes = escape(job.title), markup.notes(job.notes)
    if job.state == "running":
        return markup.section("running", _running(job, in_webui))
    if isinstance(job, Curve) and job.state == "done":
        return markup.section("done", f"<p><b>{MANY}</b> {word(ROW)}</p>{_curve(job)}{notes}")
    if isinstance(job, Plan) and job.state == "done":
        return markup.section("done", f"{_planned(job.facts)}{notes}")
    if job.saved is not None:
        return markup.section(job.state, f"{_failure(job)}{result.done(job, job.saved, in_webui)}")
    if job.state == "dropped":
        return markup.section("dropped", f"<p><b>{name}</b>: {word(escape(' '.join(job.problems)))}</p>{notes}")
    return markup.section("failed", f"{_failure(job)}{notes}")


def _failure(job: Job) -> str:
    """Why it failed, if it did."""
    if job.state != "failed":
        return ""
    failed = FAILED.get(type(job), "could not be estimated")
    return f"<p><b>{escape(job.title)}</b> {failed}</p>{problems(job.problems)}"


def _hello(folder: str) -> str:
    """What to do."""
    button = f'<button type="button" data-embedding-estimate="example">{EXAMPLE}</button>'
    return (
        f'<ol class="{PREFIX}hello">{markup.items(HELLO)}</ol><p class="{PREFIX}uses">{button}</p>'
        f"{markup.small(folder, word('Embeddings are saved in') + ' ')}"
    )


def refusal(act: Callable[[], object]) -> str:
    """Does what a button is for; why that is refused, as HTML, or nothing."""
    try:
        act()
    except SettingsError as error:
        return problems(error.problems)
    except Busy as error:
        return problems([str(error)], until_idle=True)
    except EstimateError as error:
        return problems([str(error)])
    return ""


def problems(lines: Sequence[str], until_idle: bool = False) -> str:
    """What is wrong, one line each; `until_idle` for what is wrong only while a job runs."""
    if not lines:
        return ""
    until = " data-until-idle" if until_idle else ""
    return f'<ul class="{PREFIX}problems" role="alert"{until}>{markup.items(lines)}</ul>'


def remarks(lines: Sequence[str]) -> str:
    """What is to be said of a field, quietly."""
    return "".join(map(markup.small, lines))


def filled(values: Mapping[str, Any]) -> str:
    """Which settings of the form were filled in, and with what."""
    labels = {parameter.name: parameter.label for parameter in PARAMETERS}
    pieces = [f"{word(labels[name])} {_shown(value)}" for name, value in values.items()]
    return f'<p class="{PREFIX}small">{word("Filled in:")} {", ".join(pieces)}</p>' if pieces else ""


def _shown(value: Any) -> str:
    """A value of the form in a few letters."""
    if not isinstance(value, str):
        return f"{value:.15g}"
    line = " ".join(value.split())
    if not line:
        return word("(emptied)")
    return f"<q>{escape(line if len(line) <= SHOWN else line[:SHOWN] + '…')}</q>"


def _running(job: Job, in_webui: bool) -> str:
    progress = job.progress
    share = progress.done / progress.total if progress and progress.total else 0.0
    left, count = job.seconds_left, ""
    if job.stop.stopped and isinstance(job, Measuring):
        doing, left = "stopping; the figures from before will stay", None
    elif job.stop.stopped and job.trained:
        doing, left = f"stopping; {'the embedding will be removed' if job.stop.dropped else 'without figures'}", None
    elif job.stop.stopped:
        kept = "the rows so far will stay" if isinstance(job, Curve) else "the best so far will be saved"
        doing = f"stopping; {'nothing will be saved' if job.stop.dropped else kept}"
        left = None
    elif isinstance(job, Plan):
        doing = "timing a few passes"
    elif progress:
        doing, count = wording.PHASES[progress.phase], f", {progress.done}/{progress.total}"
    else:
        doing = "waiting for the model"
    return (
        f'<p class="{PREFIX}head"><span>{_heading(job)} {word(doing)}{count}</span>'
        f"<span>{'' if left is None else f'{_clock(left)} left'}</span></p>"
        f'<div class="{PREFIX}bar" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}"><div style="{markup.width(share)}"></div></div>'
        f"{_so_far(job, in_webui)}{result.previewed(job)}{markup.notes(job.notes)}"
    )


def _so_far(job: Job, in_webui: bool) -> str:
    """What there is to see before a job is over."""
    if isinstance(job, Curve):
        return _curve(job)
    return result.saved_so_far(job, in_webui) if job.trained else chart.svg(job.curve, job.steps)


def _planned(facts: Mapping[str, Any]) -> str:
    """How long it will take, and in how much memory."""
    seconds, megabytes = facts["seconds"], facts["memory"]["total"] / 2**20
    stages = ", ".join(f"{word(stage)} {_clock(seconds[stage])}" for stage in facts["passes"])
    return (
        f"<p><b>{LONG}</b> {word('About')} {_clock(seconds['total'])} {word('on this machine')} ({stages}).</p>"
        f"<p>{word('Memory on top of the model:')} {megabytes:,.0f} MB</p>"
    )


def _heading(job: Job) -> str:
    if isinstance(job, Plan):
        return f"<b>{LONG}</b>"
    return f"<b>{MANY}</b>{_number(job)}" if isinstance(job, Curve) else f"<b>{escape(job.title)}</b>:"


def _number(job: Curve) -> str:
    """Where a curve is; its last point may be there before the job is over."""
    left = job.numbers[len(job.points) :]
    return f" N = {left[0]}," if left and job.progress and not job.stop.stopped else ""


def _curve(job: Curve) -> str:
    """The figures over N; rows are made to work by the javascript."""
    if not job.points:
        return ""
    titles = ("N", "explained", "emphasis explained", "emphasis in context", "seconds")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    return (
        f"{chart.over_tokens(job.points, job.numbers)}"
        f'<table class="{PREFIX}points"><tr>{head}</tr>{"".join(map(_point, job.points))}</table>'
    )


def _point(point: Point) -> str:
    figures = point.fidelity
    shown = (figures.explained, figures.emphasis_explained, figures.emphasis_in_context)
    cells = "".join(f"<td>{wording.number(value)}</td>" for value in shown)
    return (
        f'<tr data-embedding-estimate="tokens" data-tokens="{point.tokens}">'
        f'<td><button type="button">{point.tokens}</button></td>{cells}<td>{point.seconds:.1f}</td></tr>'
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
