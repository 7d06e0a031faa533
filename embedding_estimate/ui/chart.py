"""The curve of a running job as inline SVG; its colours are the page's, see style.css."""

from __future__ import annotations

import math
from collections.abc import Sequence

from embedding_estimate.drawing import smoothed
from embedding_estimate.ui import PREFIX

WIDTH, HEIGHT = 480, 150  # of the drawing, which is stretched to its place
TICKS = (1, 0.5)
TOP = 1.2  # room for the loss to rise over its start
POINTS = 240  # more cannot be told apart
SMOOTH = 5  # readings of the loss, each of one draw


def svg(curve: Sequence[tuple[int, float, float]], total: int) -> str:
    """Loss and explained over the learning steps, from (step, loss, explained)."""
    curve = [point for point in curve if all(map(math.isfinite, point))]
    if not curve:
        return ""
    steps = [step for step, _, _ in curve]
    losses = smoothed([loss for _, loss, _ in curve], SMOOTH)
    lines = {
        "loss": [(0, 1.0), *zip(steps, losses, strict=True)],  # it is 1 at the start
        "explained": [(step, explained) for step, _, explained in curve],
    }
    drawn = "".join(
        f'<polyline class="{PREFIX}{name}" points="{_points(line, total)}"/>' for name, line in lines.items()
    )
    grid = "".join(f'<path d="M0 {HEIGHT * _below(tick):.1f}H{WIDTH}"/>' for tick in TICKS)
    ticks = "".join(f'<small style="top: {_below(tick):.1%}">{tick}</small>' for tick in TICKS)
    _, loss, explained = curve[-1]
    return (
        f'<figure class="{PREFIX}chart"><div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{grid}{drawn}</svg>'
        f"{ticks}</div><figcaption>"  # the ticks are no part of the drawing, which would stretch them
        f'<span class="{PREFIX}loss">loss {loss:.3f}</span>'
        f'<span class="{PREFIX}explained">explained {explained:.3f}</span></figcaption></figure>'
    )


def _below(y: float) -> float:
    """Where a value lies, in heights from the top."""
    return 1 - min(max(y, 0), TOP) / TOP


def _points(line: Sequence[tuple[int, float]], total: int) -> str:
    kept = [*line[:: math.ceil(len(line) / POINTS)], line[-1]]
    return " ".join(f"{WIDTH * x / total:.1f},{HEIGHT * _below(y):.1f}" for x, y in kept)
