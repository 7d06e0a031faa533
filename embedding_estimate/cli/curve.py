"""`estimate --curve`: how the figures depend on the number of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedding_estimate.cli.figures import print_json, print_line
from embedding_estimate.cli.host import HostOptions, load
from embedding_estimate.cli.notes import Notes
from embedding_estimate.cli.printing import show
from embedding_estimate.cli.progress import INTERRUPTED, Bars, interruptible
from embedding_estimate.errors import SettingsError, quoted
from embedding_estimate.estimation import summary
from embedding_estimate.fidelity.wording import number
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage.saving import check_report

if TYPE_CHECKING:
    from embedding_estimate.estimation.curve import Point


def run_curve(
    settings: Settings,
    hosted: HostOptions,
    counts: str,
    report: Path | None,
    as_json: bool,
    contexts: Sequence[str],
) -> None:
    """Estimates with each number of vectors, prints a line for each, and draws them. Saves no embedding.

    The figures are measured in `contexts`, or in the model's own if these are empty.
    """
    numbers = parsed(counts)
    check_report(report, None)
    from embedding_estimate.checks import advice
    from embedding_estimate.estimation.curve import advised, curve, variants

    variants(settings, numbers)  # raises for wrong settings before the model is loaded
    notes = Notes()
    notes(advice.of_settings(advised(settings)))
    host = load(hosted)
    points: list[Point] = []
    stop = StopToken()
    with interruptible(stop):
        bars: dict[int, Bars] = {tokens: Bars(f"N = {tokens}, ") for tokens in numbers}
        tried = curve(
            settings, host, numbers, contexts=contexts, on_notes=notes, on_progress=bars.__getitem__, stop=stop
        )
        for point in tried:
            bars[point.tokens].close()
            if not points:
                print_line(f"{'N':>4}{'explained':>12}{'emphasis':>12}{'in context':>12}{'seconds':>10}")
            points.append(point)
            print_line(_line(point))
    if report and points:
        from embedding_estimate.reports import report as drawn
        from embedding_estimate.teaching.plan import learning_steps

        steps = f"{learning_steps(settings)} steps each"
        facts = [settings.prompt_type.lower(), f"{settings.part} part", steps]
        drawn.save(
            drawn.draw_curve("How many vectors?", "" if settings.private else settings.text, facts, points), report
        )
        show(f"report: {report}")
    if as_json:
        rows = [{"tokens": p.tokens, **summary.of_figures(p.fidelity), "seconds": p.seconds} for p in points]
        print_json({"part": settings.part, "rows": rows, "stopped": "interrupted" if stop.stopped else "done"})
    if stop.stopped:
        raise click.exceptions.Exit(INTERRUPTED)


def parsed(counts: str) -> list[int]:
    """The numbers in a text such as 1,2,4,8. Raises `SettingsError` for anything else."""
    try:
        return [int(part) for part in counts.split(",")]
    except ValueError:
        raise SettingsError(
            [f"curve={quoted(counts)}: give whole numbers separated by commas, for example 1,2,4,8"]
        ) from None


def _line(point: Point) -> str:
    figures = point.fidelity
    shown = (figures.explained, figures.emphasis_explained, figures.emphasis_in_context)
    return f"{point.tokens:>4}{''.join(f'{number(value):>12}' for value in shown)}{point.seconds:>10.1f}"
