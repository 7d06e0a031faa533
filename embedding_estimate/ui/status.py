"""What is known of a job, as HTML. Everything that somebody typed is escaped."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from embedding_estimate.errors import printable
from embedding_estimate.estimation.curve import Point
from embedding_estimate.fidelity import wording
from embedding_estimate.fidelity.previews import Preview
from embedding_estimate.fidelity.protocol import Fidelity
from embedding_estimate.jobs.jobs import Curve, Job, Saved
from embedding_estimate.settings import PARAMETERS
from embedding_estimate.storage.saving import listed
from embedding_estimate.ui import PREFIX, chart, word

SHOWN = 40  # letters of a prompt that was filled in
THUMBNAIL = 256  # pixels, the longer side: it comes with every answer
MANY = "How many tokens?"
ROW = "A row sets Tokens."
TRAINED = "Saved. Interrupt (save) leaves the figures out:"
CARD = "Its card shows after Refresh among the Textual Inversion cards, or when the page is loaded again."
HELLO = "A prompt goes in, an embedding comes out: one word to type in its place."


def render(job: Job | None, folder: str, in_webui: bool) -> str:
    """The state of the latest job; `folder` is where embeddings go."""
    if job is None:
        return _section("idle", f"<p>{HELLO}</p>{_small(folder, word('Embeddings are saved in') + ' ')}")
    name = escape(job.title)
    if job.state == "running":
        return _section("running", _running(job))
    if isinstance(job, Curve) and job.state == "done":
        return _section("done", f"<p><b>{MANY}</b> {word(ROW)}</p>{_curve(job)}{_notes(job.notes)}")
    if job.saved is not None and job.state == "done":
        return _section("done", _done(job, job.saved, in_webui))
    if job.state == "dropped":
        why = word(escape(" ".join(job.problems)))
        return _section("dropped", f"<p><b>{name}</b>: {why}</p>{_notes(job.notes)}")
    failed = f"<p><b>{name}</b> could not be estimated</p>"
    return _section("failed", f"{failed}{problems(job.problems)}{_notes(job.notes)}")


def problems(lines: Sequence[str], until_idle: bool = False) -> str:
    """What is wrong, one line each; `until_idle` for what is wrong only while a job runs."""
    if not lines:
        return ""
    until = " data-until-idle" if until_idle else ""
    return f'<ul class="{PREFIX}problems" role="alert"{until}>{_items(lines)}</ul>'


def remarks(lines: Sequence[str]) -> str:
    """What is to be said of a field, quietly."""
    return "".join(map(_small, lines))


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


def _section(state: str, body: str) -> str:
    return f'<section class="{PREFIX}job" data-state="{state}">{body}</section>'


def _running(job: Job) -> str:
    progress = job.progress
    share = progress.done / progress.total if progress and progress.total else 0.0
    left, count = job.seconds_left, ""
    if job.stop.stopped and job.trained:
        doing, left = f"stopping; {'the embedding will be removed' if job.stop.dropped else 'without figures'}", None
    elif job.stop.stopped:
        kept = "the rows so far will stay" if isinstance(job, Curve) else "the best so far will be saved"
        doing = f"stopping; {'nothing will be saved' if job.stop.dropped else kept}"
        left = None
    elif progress:
        doing, count = wording.PHASES[progress.phase], f", {progress.done}/{progress.total}"
    else:
        doing = "waiting for the model"
    return (
        f'<p class="{PREFIX}head"><span>{_heading(job)} {word(doing)}{count}</span>'
        f"<span>{'' if left is None else f'{_clock(left)} left'}</span></p>"
        f'<div class="{PREFIX}bar" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}"><div style="{_width(share)}"></div></div>'
        f"{_small(listed(job.trained), word(TRAINED) + ' ') if job.trained else ''}"
        f"{_curve(job) if isinstance(job, Curve) else chart.svg(job.curve, job.steps)}"
        f"{_previewed(job.preview)}{_notes(job.notes)}"
    )


def _heading(job: Job) -> str:
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


def _previewed(preview: Preview | None) -> str:
    """Small pictures inside the page, side by side."""
    if preview is None:
        return ""
    cells = "".join(
        f'<div><img alt="" src="{_thumbnail(picture)}"><small>{row}</small></div>'
        for row, picture in preview.pictures.items()
    )
    caption = f"{word('The same seed at step')} {preview.step}"
    return f'<figure class="{PREFIX}preview">{cells}<figcaption>{caption}</figcaption></figure>'


def _thumbnail(picture: Image.Image) -> str:
    small, data = picture.copy(), io.BytesIO()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(data, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _done(job: Job, saved: Saved, in_webui: bool) -> str:
    result = saved.estimate
    name, typed = result.embedding.name, result.phrase
    tokens = result.embedding.tokens
    vectors = f"{tokens} {word('vector' if tokens == 1 else 'vectors')}"
    figures = _figures(result.fidelity, tokens) if result.fidelity else ""
    unmeasured = "" if result.fidelity else "; the best of them was saved without being measured"
    return (
        f"<p>{word('Saved:')} {vectors}, {word('typed as the word' if typed == name else 'typed as')} "
        f"<code>{escape(typed)}</code></p>"
        f"{_uses(typed, job.settings.negative, in_webui, several=len(saved.paths) > 1)}"
        f"{_small(listed(saved.paths))}{_small('', word(CARD)) if in_webui else ''}{figures}"
        f"<p>{result.steps} steps ({result.stopped}{unmeasured}) in "
        f"{result.seconds_prepare + result.seconds_train:.1f} s; "
        f"longest vector {result.norm_ratio:.1f} times a word's</p>"
        f"{_notes(job.notes)}"
        f"{_picture(saved.report) or chart.svg(job.curve, job.steps)}"
        f"{'' if saved.pictures else _previewed(job.preview)}"
    )


def _uses(typed: str, negative: bool, in_webui: bool, several: bool) -> str:
    """Buttons, made to work by the javascript: to copy what is typed, to type it in the prompts next door, or to keep
    what is typed for several words as a style."""
    uses = {"copy": "Copy"}
    if in_webui:
        sides = {"txt2img_prompt": "To the prompt", "txt2img_neg_prompt": "To the negative prompt"}
        uses |= dict(reversed(sides.items())) if negative else sides
        uses |= {"style": "Save as style"} if several else {}
    buttons = "".join(
        f'<button type="button" data-embedding-estimate="{use}" data-typed="{escape(typed)}">{label}</button>'
        for use, label in uses.items()
    )
    return f'<p class="{PREFIX}uses">{buttons}</p>'


def _figures(figures: Fidelity, tokens: int) -> str:
    """Each with a bar, so that a glance holds it against its baselines."""
    return f'<dl class="{PREFIX}figures">{"".join(map(_figure, wording.rows(figures, tokens)))}</dl>'


def _figure(row: wording.Row) -> str:
    bar = f'<dd class="{PREFIX}bar"><div style="{_width(row.value or 0)}"></div></dd>' if row.share else ""
    kind = f' class="{PREFIX}baseline"' if row.baseline else ""
    return f"<div{kind}><dt>{row.label}</dt><dd>{row.number}</dd>{bar}<dd>{row.meaning}</dd></div>"


def _width(share: float) -> str:
    return f"width: {min(max(share, 0), 1):.1%}"


def _picture(report: Path | None) -> str:
    """The picture inside the page: so it needs no way of its own through the host's rules for files."""
    try:
        png = report.read_bytes() if report else b""
    except OSError:  # moved away since
        png = b""
    if not png:
        return ""
    data = base64.b64encode(png).decode()
    picture = f'<img alt="Figures, curves and same-seed images" src="data:image/png;base64,{data}">'
    return f'<button type="button" class="{PREFIX}report" data-embedding-estimate="open">{picture}</button>'


def _notes(notes: Sequence[str]) -> str:
    return f'<ul class="{PREFIX}notes">{_items(notes)}</ul>' if notes else ""


def _items(lines: Sequence[str]) -> str:
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def _small(text: str, label: str = "") -> str:
    return f'<p class="{PREFIX}small">{label}{escape(printable(text))}</p>'


def _clock(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
