"""An estimate in one picture: what was asked, the figures, how they came about, and same-seed images.

draw         of one embedding; what is not known is left out: curves of a foreign file, images of an interrupted job
draw_curve   of several estimates of one prompt: the figures over N
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from embedding_estimate.estimation.curve import Point
from embedding_estimate.estimation.trainer import Estimate
from embedding_estimate.fidelity.previews import picture
from embedding_estimate.fidelity.protocol import Fidelity, Images
from embedding_estimate.files.whole_file import write_whole
from embedding_estimate.model.host import BorrowedModel
from embedding_estimate.reports.drawing import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PALE,
    Canvas,
    Chart,
    Series,
    divided,
    shortened,
    smoothed,
    text_width,
)
from embedding_estimate.reports.image_grid import COLUMNS, blocks, in_context
from embedding_estimate.reports.image_grid import WIDTH as GRID_WIDTH
from embedding_estimate.settings import Settings
from embedding_estimate.storage import saving
from embedding_estimate.teaching.plan import phases

SEEDS = 4  # of the report's sixteen: as many as can be looked at
MARGIN, GAP = 36, 24
HEAD = 118  # name, prompt, facts
CARD = 84  # height of the row of figures
CHARTS = 560  # width


@dataclass(frozen=True)
class Report:
    """What is drawn."""

    name: str
    prompt: str
    facts: Sequence[str]  # "U-Net", "4 tokens", ...
    fidelity: Fidelity | None = None
    losses: Sequence[float] = ()  # one per step
    checks: Sequence[tuple[int, float]] = ()  # (step, explained)
    pictures: Mapping[str, Sequence[Image.Image]] = field(default_factory=dict)  # of `pictures`
    context: str = ""  # that those in context are made in
    stretches: Sequence[tuple[int, str]] = ()  # (steps before it, its name); lines of two do not join


def pictures(model: BorrowedModel, images: Images, seeds: int = SEEDS) -> dict[str, list[Image.Image]]:
    """The first seeds' images by row: those alone, and as `in_context` calls them those in a context."""
    latents = {row: images.latents[row] for row in COLUMNS if row in images.latents}
    latents |= {in_context(row): value for row, value in images.in_context.items()}
    return {row: [picture(pixels) for pixels in model.decode(value[:seeds])] for row, value in latents.items()}


def of_estimate(settings: Settings, result: Estimate, images: Mapping[str, Sequence[Image.Image]]) -> Report:
    """All that is known of an estimate, with its `pictures`."""
    figures = result.fidelity
    optimizers = dict.fromkeys(phase.optimizer for phase in phases(settings))
    return Report(
        name=result.phrase,
        prompt="" if settings.private else settings.text,
        facts=[
            settings.prompt_type.lower(),
            f"{settings.part} part",
            f"N = {result.embedding.tokens}",
            f"{result.steps} steps of {' and '.join(optimizers)}",
            f"{result.seconds_prepare + result.seconds_train:.0f} s",
            f"model {result.embedding.provenance['model']['name']}",
        ],
        fidelity=figures,
        losses=result.losses,
        checks=result.checks,
        pictures=images,
        context="" if not figures or (settings.private and figures.own_contexts) else figures.pictured_context,
        stretches=result.stretches,
    )


def draw(report: Report) -> Image.Image:
    """The whole sheet: figures on top, curves on the left, images on the right, as far as there are any."""
    charts, grid = (
        bool(report.losses),
        blocks(report.pictures, report.fidelity, report.context.replace("{}", report.name)),
    )
    widths = [width for width, there in ((CHARTS, charts), (GRID_WIDTH, bool(grid))) if there] or [GRID_WIDTH]
    height = sum(block.height + GAP for block in grid) - GAP if grid else 2 * 300 + GAP if charts else 0
    width = 2 * MARGIN + sum(widths) + GAP * (len(widths) - 1)
    cards = _card_rows(width - 2 * MARGIN) * (CARD + 16) - 16 + GAP
    top = MARGIN + HEAD + (cards if report.fidelity else 0)
    canvas = Canvas(width, top + height + MARGIN)

    _head(canvas, report, width - 2 * MARGIN)
    if report.fidelity:
        _cards(canvas, report.fidelity, MARGIN, MARGIN + HEAD, width - 2 * MARGIN)
    if charts:
        _charts(canvas, report, MARGIN, top, height)
    for block in grid:
        block.draw(canvas, width - MARGIN - GRID_WIDTH, top)
        top += block.height + GAP
    return canvas.finished()


def _head(canvas: Canvas, report: Report, width: float) -> None:
    canvas.text(MARGIN, MARGIN - 8, shortened(report.name, 32, width), 32)
    canvas.text(MARGIN, MARGIN + 38, shortened(report.prompt, 18, width), 18)
    canvas.text(MARGIN, MARGIN + 68, shortened("   ·   ".join(report.facts), 15, width), 15, MUTED)


def _cards(canvas: Canvas, figures: Fidelity, x: float, y: float, width: float) -> None:
    """The figures, large, each with what to hold it against."""
    cards = [
        (figures.explained, "explained", f"without weights {_number(figures.explained_without_weights)}"),
        (figures.emphasis_explained, "emphasis explained", "without weights 0"),
        (figures.emphasis_in_context, "emphasis in context", "without weights 0"),
    ]
    if figures.image_distance is not None:
        cards.append((figures.image_distance, "image distance", "0 = same images, 1 = as far as empty"))
    columns = len(cards) if _card_rows(width) == 1 else 2
    each = (width - (columns - 1) * 16) / columns
    for index, (value, label, beside) in enumerate(cards):
        left, top = x + index % columns * (each + 16), y + index // columns * (CARD + 16)
        canvas.panel(left, top, each, CARD)
        canvas.text(left + 18, top + 22, _number(value), 34, BLUE if index < 3 else INK)
        canvas.text(left + 116, top + 22, label, _fitting(label, 16, each - 130))
        canvas.text(left + 116, top + 45, beside, _fitting(beside, 13, each - 130), MUTED)


def _fitting(text: str, size: float, width: float) -> float:
    """The size or, for text that would be wider than `width`, a smaller one."""
    return min(size, size * width / text_width(text, size))


def _card_rows(width: float) -> int:
    return 1 if width >= 1200 else 2


def _charts(canvas: Canvas, report: Report, x: float, y: float, height: float) -> None:
    losses = [(step, loss) for step, loss in enumerate(report.losses, 1) if math.isfinite(loss)]
    span = (1, len(report.losses))
    starts, x_label = report.stretches, "learning step; values of different parts cannot be compared"
    if len(starts) < 2:
        starts, x_label = (), "learning step"
    loss = Chart(
        "loss (1 at the start)",
        x_label,
        [
            Series(losses, PALE, "each step", 1.2),
            Series(_running_means(losses, starts), ORANGE, "mean", 2.4),
        ],
        y_from=0.0,
        x_span=span,
        stretches=starts,
    )
    explained = Chart(
        "explained, on held-out states",
        x_label,
        [Series(report.checks, BLUE, width=2.4, dots=len(report.checks) < 30)],
        [("without weights", report.fidelity.explained_in_context_without_weights)] if report.fidelity else [],
        y_to=1.0,
        x_span=span,
        stretches=starts,
    )
    each = (height - GAP) / 2
    loss.draw(canvas, x, y, CHARTS, each)
    explained.draw(canvas, x, y + each + GAP, CHARTS, each)


def _running_means(
    losses: Sequence[tuple[int, float]], stretches: Sequence[tuple[int, str]]
) -> list[tuple[float, float]]:
    """The running mean of each stretch by itself."""
    over = max(1, len(losses) // 15)
    means: list[tuple[float, float]] = []
    for line in divided(losses, stretches):
        means += zip([step for step, _ in line], smoothed([loss for _, loss in line], over), strict=True)
    return means


def draw_curve(name: str, prompt: str, facts: Sequence[str], points: Sequence[Point]) -> Image.Image:
    """The figures over N."""
    width, height = 900, 460
    canvas = Canvas(width + 2 * MARGIN, height + HEAD + 2 * MARGIN)
    _head(canvas, Report(name, prompt, facts), width)
    figures = [point.fidelity for point in points]
    lines: list[tuple[str, str, list[float | None]]] = [
        ("explained", BLUE, [each.explained for each in figures]),
        ("emphasis explained", ORANGE, [each.emphasis_explained for each in figures]),
        ("emphasis in context", INK, [each.emphasis_in_context for each in figures]),
    ]
    chart = Chart(
        "figures by number of vectors",
        "N, number of vectors",
        [Series(_known(points, values), colour, label, 2.4, dots=True) for label, colour, values in lines],
        y_from=0.0,
        y_to=1.0,
    )
    chart.draw(canvas, MARGIN, MARGIN + HEAD, width, height)
    return canvas.finished()


def _known(points: Sequence[Point], values: Sequence[float | None]) -> list[tuple[float, float]]:
    """The values over N, but for those that are not there."""
    return [(point.tokens, value) for point, value in zip(points, values, strict=True) if value is not None]


def save(image: Image.Image, path: Path) -> None:
    """Writes the PNG whole or not at all. Raises `EstimateError` where it cannot be written."""
    write_whole(path, saving.png(image))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"
