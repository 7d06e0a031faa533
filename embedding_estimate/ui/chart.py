"""Curves of jobs as inline SVG; its colours are the page's, see style.css."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from embedding_estimate.estimation.curve import Point
from embedding_estimate.jobs.readings import Reading, Readings, Stretch
from embedding_estimate.reports.drawing import smoothed
from embedding_estimate.ui import PREFIX, word

WIDTH, HEIGHT = 480, 150  # of the drawing, which is stretched to its place
TICKS = (1, 0.5)
TOP = 1.2  # room for the loss to rise over its start
SMOOTH = 5  # readings of the loss, each of one draw
ANEW = "each part is measured anew"


def svg(curve: Readings, total: int) -> str:
    """Loss and explained over the learning steps: lines of their own for each stretch, the earlier ones pale."""
    stretches = [Stretch(stretch.name, _finite(stretch.readings)) for stretch in curve.stretches]
    stretches = [stretch for stretch in stretches if stretch.readings]
    if not stretches:
        return ""
    drawn = "".join(
        f'<polyline class="{PREFIX}{name}{"" if stretch is stretches[-1] else f" {PREFIX}earlier"}" '
        f'points="{_points(line, total)}"/>'
        for stretch in stretches
        for name, line in _lines(stretch, is_first=stretch is stretches[0]).items()
    )
    _, loss, explained = stretches[-1].readings[-1]
    legend = {"loss": f"{word('loss')} {loss:.3f}", "explained": f"{word('explained')} {explained:.3f}"}
    if len(stretches) > 1:
        names = ", ".join(word(stretch.name) for stretch in stretches[:-1])
        legend["others"] = f"{word('pale:')} {names}; {word(ANEW)}"
    return _figure(drawn, legend)


def _lines(stretch: Stretch, is_first: bool) -> dict[str, list[tuple[float, float]]]:
    steps, losses, explained = zip(*stretch.readings, strict=True)
    start = [(0, 1.0)] if is_first else []  # the loss is 1 at the start of all
    return {
        "loss": [*start, *zip(steps, smoothed(losses, SMOOTH), strict=True)],
        "explained": list(zip(steps, explained, strict=True)),
    }


def _finite(readings: Sequence[Reading]) -> list[Reading]:
    return [reading for reading in readings if all(map(math.isfinite, reading))]


def over_tokens(points: Sequence[Point], numbers: Sequence[int]) -> str:
    """Explained and emphasis explained of the first of these numbers, at even distances: most of them are doubles."""
    lines: dict[str, list[float | None]] = {
        "explained": [point.fidelity.explained for point in points],
        "emphasis": [point.fidelity.emphasis_explained for point in points],
    }
    drawn = ""
    for name, values in lines.items():
        line = [(place + 0.5, y) for place, y in enumerate(values) if y is not None and math.isfinite(y)]
        if line:
            places = _points(line, len(numbers))
            dots = "".join(f"M{place}h0" for place in places.split())  # lines of no length, which no stretching harms
            drawn += f'<polyline class="{PREFIX}{name}" points="{places}"/><path class="{PREFIX}{name}" d="{dots}"/>'
    below = "".join(
        f'<small class="{PREFIX}number" style="left: {(place + 0.5) / len(numbers):.1%}">{number}</small>'
        for place, number in enumerate(numbers)
    )
    return _figure(drawn, {"explained": "explained", "emphasis": "emphasis explained"}, below)


def _figure(drawn: str, legend: Mapping[str, str], below: str = "") -> str:
    """Lines within their frame, and what they are."""
    grid = "".join(f'<path d="M0 {HEIGHT * _below(tick):.1f}H{WIDTH}"/>' for tick in TICKS)
    ticks = "".join(f'<small style="top: {_below(tick):.1%}">{tick}</small>' for tick in TICKS)
    spans = "".join(f'<span class="{PREFIX}{name}">{label}</span>' for name, label in legend.items())
    return (
        f'<figure class="{PREFIX}chart"><div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{grid}{drawn}</svg>'
        f"{ticks}{below}</div>"  # what is written is no part of the drawing, which would stretch it
        f"<figcaption>{spans}</figcaption></figure>"
    )


def _below(y: float) -> float:
    """Where a value lies, in heights from the top."""
    return 1 - min(max(y, 0), TOP) / TOP


def _points(line: Sequence[tuple[float, float]], total: int) -> str:
    """The last one twice, so that one alone is a dot."""
    return " ".join(f"{WIDTH * x / total:.1f},{HEIGHT * _below(y):.1f}" for x, y in [*line, line[-1]])
