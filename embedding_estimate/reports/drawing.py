"""What the report is drawn with: text, lines and charts, by Pillow alone.

Everything is drawn `SCALE` times too large and made smaller at the end, which smooths lines that Pillow draws in steps.
Lengths are in pixels of the finished picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SCALE = 2
MATPLOTLIB_FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"  # in its package

PAPER, PANEL, GRID = "#ffffff", "#f6f7f9", "#e2e5ea"
INK, MUTED = "#1b2330", "#667085"
BLUE, ORANGE, PALE, GREY = "#2f6fde", "#e0782f", "#f3cdb1", "#98a2b3"


class Canvas:
    """A picture to draw on."""

    def __init__(self, width: int, height: int):
        self._image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def finished(self) -> Image.Image:
        width, height = self._image.size
        return self._image.resize((width // SCALE, height // SCALE), Image.Resampling.LANCZOS)

    def text(self, x: float, y: float, text: str, size: float, colour: str = INK, anchor: str = "l") -> None:
        """One line, its top at y; `anchor` l, m or r says what x is the left, the middle or the right of."""
        font, text = _font(size), _drawable(text, size)
        x -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor] * font.getlength(text) / SCALE
        self._draw.text((x * SCALE, y * SCALE), text, fill=colour, font=font)

    def panel(self, x: float, y: float, width: float, height: float) -> None:
        box = (x * SCALE, y * SCALE, (x + width) * SCALE, (y + height) * SCALE)
        self._draw.rounded_rectangle(box, 8 * SCALE, fill=PANEL)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, fill=colour, width=max(1, round(width * SCALE)), joint="curve")

    def dashes(self, x: float, y: float, length: float, colour: str) -> None:
        """A dashed horizontal line."""
        for start in range(0, int(length), 10):
            self.line([(x + start, y), (x + min(start + 6, length), y)], colour, 1.5)

    def dot(self, x: float, y: float, colour: str, radius: float = 3.5) -> None:
        box = [(x - radius) * SCALE, (y - radius) * SCALE, (x + radius) * SCALE, (y + radius) * SCALE]
        self._draw.ellipse(box, fill=colour)

    def picture(self, x: float, y: float, picture: Image.Image, width: int, height: int) -> None:
        """A picture in a box, its proportions kept; a tiny one in whole squares."""
        scale = min(width / picture.width, height / picture.height) * SCALE
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        method = Image.Resampling.NEAREST if picture.width <= 32 else Image.Resampling.LANCZOS
        left = x * SCALE + (width * SCALE - size[0]) / 2
        top = y * SCALE + (height * SCALE - size[1]) / 2
        self._image.paste(picture.convert("RGB").resize(size, method), (round(left), round(top)))


def _font(size: float) -> Any:
    """Pillow's own font in any size; before 10.1 it had none, but matplotlib has, which gradio 3 comes with."""
    with suppress(TypeError, ImportError, OSError):
        return ImageFont.load_default(size=size * SCALE)
    with suppress(ImportError, OSError):
        if found := find_spec("matplotlib"):
            return ImageFont.truetype(str(Path(str(found.origin)).parent / MATPLOTLIB_FONT), round(size * SCALE))
    return ImageFont.load_default()  # one size, Latin only


def _drawable(text: str, size: float) -> str:
    """Text in one line that the font can take: what it has no picture for becomes a box, or a question mark."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    if isinstance(_font(size), ImageFont.FreeTypeFont):
        return line
    return line.encode("latin-1", "replace").decode("latin-1")


def text_width(text: str, size: float) -> float:
    """How wide a line of text of that size is drawn, in pixels."""
    return float(_font(size).getlength(_drawable(text, size))) / SCALE


def shortened(text: str, size: float, width: float) -> str:
    """The text, its end cut where it is wider than `width`."""
    text = text[: int(width)]  # no letter is narrower than a pixel or so: spares measuring a book
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text} ...", size) > width:
        text = text[: int(len(text) * 0.95)] if len(text) > 40 else text[:-1]
    return f"{text} ..."


@dataclass(frozen=True)
class Series:
    """A line of a chart."""

    points: Sequence[tuple[float, float]]
    colour: str
    label: str = ""
    width: float = 2.0
    dots: bool = False


@dataclass(frozen=True)
class _Axes:
    """Where a chart's values are on the canvas, y upwards."""

    left: float
    top: float
    right: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        return (
            self.left + (x - self.x_low) / (self.x_high - self.x_low) * (self.right - self.left),
            self.bottom - (y - self.y_low) / (self.y_high - self.y_low) * (self.bottom - self.top),
        )


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis, with dashed levels to compare them to."""

    title: str
    x_label: str
    series: Sequence[Series]
    levels: Sequence[tuple[str, float]] = ()
    y_from: float | None = None  # the y axis begins here or below
    y_to: float | None = None  # and ends here or above
    x_span: tuple[float, float] | None = None  # None: as far as the lines go
    stretches: Sequence[tuple[float, str]] = ()  # (x that it begins behind, name); no line joins two

    def draw(self, canvas: Canvas, x: float, y: float, width: float, height: float) -> None:
        canvas.panel(x, y, width, height)
        canvas.text(x + 20, y + 16, self.title, 17)
        self._legend(canvas, x + width - 20, y + 18)
        left, top, right, bottom = x + 62, y + 58, x + width - 24, y + height - 54

        series = [_finite(one) for one in self.series]
        if not any(one.points for one in series):
            canvas.text((left + right) / 2, (top + bottom) / 2 - 9, "nothing was measured", 14, MUTED, "m")
            return
        xs = [px for one in series for px, _ in one.points]
        ys = [py for one in series for _, py in one.points] + [value for _, value in self.levels]
        ys += [value for value in (self.y_from, self.y_to) if value is not None]
        y_ticks = ticks(min(ys), max(ys))
        x_low, x_high = self.x_span or (min(xs), max(xs))
        axes = _Axes(left, top, right, bottom, x_low, max(x_high, x_low + 1), y_ticks[0], y_ticks[-1])
        self._axes(canvas, axes, y_ticks)
        for label, value in self.levels:
            _, at = axes.place(axes.x_low, value)
            canvas.dashes(left, at, right - left, GREY)
            canvas.text(right, at + 3, label, 13, MUTED, "r")
        for one in series:
            self._line(canvas, axes, one)
        for begins, name in self.stretches:
            at, _ = axes.place(max(begins, axes.x_low), axes.y_low)
            if begins > axes.x_low:
                canvas.line([(at, top), (at, bottom)], GREY, 1)
            canvas.text(at + 3, top - 18, name, 12, MUTED)

    def _axes(self, canvas: Canvas, axes: _Axes, y_ticks: Sequence[float]) -> None:
        left, right, bottom = axes.left, axes.right, axes.bottom
        for tick in y_ticks:
            _, at = axes.place(axes.x_low, tick)
            canvas.line([(left, at), (right, at)], GRID, 1)
            canvas.text(left - 10, at - 9, f"{tick:.10g}", 13, MUTED, "r")
        for tick in ticks(axes.x_low, axes.x_high, whole=True):
            if axes.x_low <= tick <= axes.x_high:
                at, _ = axes.place(tick, axes.y_low)
                canvas.line([(at, bottom), (at, bottom + 5)], GREY, 1)
                canvas.text(at, bottom + 9, f"{tick:.10g}", 13, MUTED, "m")
        canvas.line([(left, bottom), (right, bottom)], GREY, 1)
        canvas.text((left + right) / 2, bottom + 28, self.x_label, 13, MUTED, "m")

    def _line(self, canvas: Canvas, axes: _Axes, one: Series) -> None:
        for line in divided(one.points, self.stretches):
            points = [axes.place(*point) for point in line]
            if len(points) > 1:
                canvas.line(points, one.colour, one.width)
            if one.dots or len(points) == 1:
                for point in points:
                    canvas.dot(*point, one.colour)

    def _legend(self, canvas: Canvas, right: float, y: float) -> None:
        for one in reversed([one for one in self.series if one.label]):
            right -= text_width(one.label, 14)
            canvas.text(right, y, one.label, 14, MUTED)
            canvas.line([(right - 28, y + 9), (right - 8, y + 9)], one.colour, 2.5)
            right -= 46


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Four to seven round numbers, multiples of 1, 2 or 5 times a power of ten, that enclose low and high but for
    rounding in single precision."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= span * (1 - 1e-6))
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def divided(
    points: Sequence[tuple[float, float]], stretches: Sequence[tuple[float, str]]
) -> list[list[tuple[float, float]]]:
    """The points (x, y) of each stretch (x that it begins behind, its name); without any, all in one."""
    begins = [-math.inf, *(begins for begins, _ in stretches[1:])]
    ends = [*begins[1:], math.inf]
    return [[point for point in points if low < point[0] <= high] for low, high in zip(begins, ends, strict=True)]


def smoothed(values: Sequence[float], over: int) -> list[float]:
    """The running mean of the `over` values up to each; the first ones of what there is."""
    out, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - over] if index >= over else 0.0)
        out.append(total / min(index + 1, over))
    return out


def _finite(series: Series) -> Series:
    points = [point for point in series.points if all(map(math.isfinite, point))]
    return Series(points, series.colour, series.label, series.width, series.dots)
