"""What an estimate has come to, as HTML: what to type, how close it is, what to try next; then figures and details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from embedding_estimate.checks import advice
from embedding_estimate.estimation.trainer import Estimate
from embedding_estimate.fidelity import wording
from embedding_estimate.fidelity.verdict import ALONE, AMONG_WORDS, Verdict, verdict
from embedding_estimate.jobs.job import Job, Saved
from embedding_estimate.progress import StopReason
from embedding_estimate.reports.image_grid import in_context
from embedding_estimate.settings import ALONE as USE_ALONE
from embedding_estimate.settings import Settings
from embedding_estimate.storage.saving import listed
from embedding_estimate.ui import PREFIX, chart, markup, word
from embedding_estimate.ui.next_steps import next_steps

Figures = Mapping[str, Any]  # those of `Fidelity` by name, as far as they are measured

CARD = "Its card shows after Refresh among the Textual Inversion cards, or when the page is loaded again."
TO_TYPE = {False: "Type this in your prompt:", True: "Type this in your negative prompt:"}
MEASURED_NEXT = "It is saved and ready to use. How close it is to the prompt is being measured."
UNMEASURED = "It is saved and ready to use. How close it is to the prompt was not measured."
CLOSER = "To come closer:"
DETAILS = "All figures and details"
PICTURED = ("prompt", "embedding", "without weights")  # rows of the report's pictures
ENDS = {  # by why the training ended; {} is the number of learning steps
    StopReason.DONE: "The training took {} steps.",
    StopReason.EARLY: "The training ended early, after {} steps, because it made no more progress.",
    StopReason.INTERRUPTED: "The training was interrupted after {} steps. The best vectors so far are saved.",
    StopReason.DIVERGED: "The training became unstable after {} steps. The best vectors before that are saved.",
    StopReason.NO_MEMORY: "The memory ran out after {} steps. The best vectors so far are saved.",
    StopReason.FAILED: "The model failed after {} steps. The best vectors so far are saved.",
}
UNTRAINED = "No training was needed."
QUICK = "These are quick figures. ± is their standard error."
MEASURE = "Measure fully"


class Headline(NamedTuple):
    """One of the two figures that the verdict is on."""

    title: str
    names: tuple[str, str]  # of the figures: of the weights' effect, and of the whole prompt's
    said: str  # {} is the verdict


HEADLINES = (
    Headline("Among other words", AMONG_WORDS, "{}, among other words."),
    Headline("Typed alone", ALONE, "{}, typed alone."),
)
MEANINGS = {
    "emphasis_in_context": "emphasis in context: 1 is the prompt, 0 is its words without weights",
    "emphasis_explained": "emphasis explained: 1 is the prompt, 0 is its words without weights",
    "explained_in_context": "explained in context: 1 is the prompt, 0 is none of its words",
    "explained": "explained: 1 is the prompt, 0 is the empty prompt",
}


def saved_so_far(job: Job, in_webui: bool) -> str:
    """Of a job whose embedding is there and is being measured, with the figures that are known."""
    return (
        f"{_to_type(job, job.typed, job.trained, in_webui)}<p>{word(MEASURED_NEXT)}</p>"
        f"{_saved_as(job.trained)}{_verdict(job.settings, job.figures)}{_headlines(job.settings, job.figures)}"
    )


def done(job: Job, saved: Saved, in_webui: bool) -> str:
    """Of a job that is over and has saved an embedding."""
    result, settings = saved.estimate, job.settings
    figures: Figures = result.fidelity.to_dict() if result.fidelity else {}
    steps = next_steps(settings, figures, in_webui)
    closer = f'<p>{word(CLOSER)}</p><ul class="{PREFIX}closer">{markup.items(steps)}</ul>' if steps else ""
    said = advice.of_figures(result.fidelity) if result.fidelity and steps else []  # in other words, as those steps
    return (
        f"{_to_type(job, result.phrase, saved.paths, in_webui)}"
        f"{_verdict(settings, figures) or _unmeasured(result)}{closer}"
        f"{_headlines(settings, figures) if figures else ''}"
        f"{_measure_fully(result)}"
        f"{_pictures(job, saved)}"
        f"{markup.notes([line for line in job.notes if line not in said])}"
        f"{_details(job, saved, in_webui)}"
    )


def _measure_fully(result: Estimate) -> str:
    """A button, made to work by the javascript; nothing where that is done."""
    if result.fidelity is not None and not result.fidelity.quick:
        return ""
    said = word(QUICK) if result.fidelity else ""
    button = f'<button type="button" data-embedding-estimate="measure_fully">{MEASURE}</button>'
    return f'{markup.small("", said) if said else ""}<p class="{PREFIX}uses">{button}</p>'


def _saved_as(paths: Sequence[Path]) -> str:
    return markup.small(listed(paths), word("Saved as") + " ")


def _to_type(job: Job, typed: str, paths: Sequence[Path], in_webui: bool) -> str:
    negative = job.settings.negative
    return (
        f"<p>{word(TO_TYPE[negative])} <code>{escape(typed)}</code></p>"
        f"{_uses(typed, negative, in_webui, several=len(paths) > 1)}"
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


def _in_order(settings: Settings) -> Sequence[Headline]:
    """What the embedding is made for comes first."""
    return HEADLINES[::-1] if settings.use == USE_ALONE else HEADLINES


def _verdict(settings: Settings, figures: Figures) -> str:
    """A sentence for each headline that is measured, the first one large."""
    sentences = []
    for line in _in_order(settings):
        if reached := verdict(figures, line.names):
            kind = f"{PREFIX}{reached.name.lower()}"
            sentences.append(f'<span class="{kind}">{line.said.format(reached)}</span>')
    return f'<p class="{PREFIX}verdict">{" ".join(sentences)}</p>' if sentences else ""


def _unmeasured(result: Estimate) -> str:
    if result.stopped is StopReason.EXACT:
        return f'<p class="{PREFIX}verdict"><span class="{PREFIX}very_close">{Verdict.VERY_CLOSE}.</span></p>'
    return f"<p>{word(UNMEASURED)}</p>"


def _headlines(settings: Settings, figures: Figures) -> str:
    return _list([_headline(line, figures) for line in _in_order(settings)])


def _headline(line: Headline, figures: Figures) -> wording.Row:
    """The figure of the weights' effect where it is defined, else that of the whole prompt's."""
    emphasis, explained = line.names
    if explained not in figures:
        return wording.Row(line.title, None, "being measured")
    name = explained if figures[emphasis] is None else emphasis
    return wording.Row(line.title, figures[name], MEANINGS[name], error=figures.get("standard_errors", {}).get(name))


def _list(rows: Sequence[wording.Row]) -> str:
    """Each with a bar, so that a glance holds it against its baselines."""
    return f'<dl class="{PREFIX}figures">{"".join(map(_figure, rows))}</dl>'


def _figure(row: wording.Row) -> str:
    bar = f'<dd class="{PREFIX}bar"><div style="{markup.width(row.value or 0)}"></div></dd>' if row.share else ""
    kind = f' class="{PREFIX}baseline"' if row.baseline else ""
    return f"<div{kind}><dt>{row.label}</dt><dd>{row.number}</dd>{bar}<dd>{row.meaning}</dd></div>"


def _pictures(job: Job, saved: Saved) -> str:
    """Of one seed: the report's, or the last ones from the training."""
    images = {name: saved.pictures[name][0] for name in PICTURED if saved.pictures.get(name)}
    if images:
        return markup.pictures(images, word("The same seed"))
    inside = {name: saved.pictures[in_context(name)][0] for name in PICTURED if saved.pictures.get(in_context(name))}
    if inside:
        return markup.pictures(inside, f"{word('The same seed')}: {_around(saved)}")
    return previewed(job)


def _around(saved: Saved) -> str:
    """The prompt that the pictures were made of, with what is typed in it."""
    figures = saved.estimate.fidelity
    assert figures is not None  # it was measured in that context
    return f"<code>{escape(figures.pictured_context.replace('{}', saved.estimate.phrase))}</code>"


def previewed(job: Job) -> str:
    """The latest pictures from the training."""
    if job.preview is None:
        return ""
    return markup.pictures(job.preview.pictures, f"{word('The same seed at step')} {job.preview.step}")


def _details(job: Job, saved: Saved, in_webui: bool) -> str:
    result = saved.estimate
    all_figures = _list(wording.rows(result.fidelity, result.embedding.tokens)) if result.fidelity else ""
    return (
        f'<details class="{PREFIX}details"><summary>{word(DETAILS)}</summary>{all_figures}'
        f"{''.join(f'<p>{line}</p>' for line in _sentences(result))}"
        f"{_saved_as(saved.paths)}{markup.small('', word(CARD)) if in_webui else ''}"
        f"{markup.report(saved.report) or chart.svg(job.curve, job.steps)}</details>"
    )


def _sentences(result: Estimate) -> Sequence[str]:
    """How it was made."""
    tokens = result.embedding.tokens
    end = UNTRAINED if result.stopped is StopReason.EXACT else ENDS[result.stopped].format(result.steps)
    return (
        "The embedding has 1 vector." if tokens == 1 else f"The embedding has {tokens} vectors.",
        end,
        f"Preparing and training took {result.seconds_prepare + result.seconds_train:.1f} seconds.",
        f"The longest vector is {result.norm_ratio:.1f} times as long as the vector of a usual token.",
    )
