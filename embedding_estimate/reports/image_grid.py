"""Same-seed images side by side, as the report has them: of the embedding alone, and in one of the contexts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from embedding_estimate.fidelity.protocol import Fidelity
from embedding_estimate.reports.drawing import BLUE, INK, MUTED, Canvas, shortened

WIDTH = 766  # pixels, of all that stands side by side
SPACE = 10  # between two images
LABELS = 50  # height of the words above a column
HEADING = 34  # height of the words above several

COLUMNS = {  # row of the fidelity -> what stands above the images
    "prompt": "prompt",
    "embedding": "embedding",
    "without weights": "without weights",
    "empty": "empty prompt",
}
THERE = ("prompt", "embedding", "without weights")  # of these also in a context


def in_context(row: str) -> str:
    """What a row is called whose images are made in a context."""
    return f"{row} in context"


@dataclass(frozen=True)
class Column:
    """Images of one row below each other, one for each seed."""

    label: str
    explained: float | None  # None: it is not known
    images: Sequence[Image.Image]
    colour: str = INK


@dataclass(frozen=True)
class Block:
    """Columns of the same seeds, so many side by side."""

    columns: Sequence[Column]
    across: int
    heading: str = ""

    @property
    def height(self) -> int:
        """Pixels."""
        return self._top + math.ceil(len(self.columns) / self.across) * self._step - SPACE

    def draw(self, canvas: Canvas, x: float, y: float) -> None:
        """Draws it, `WIDTH` wide, from its upper left corner on."""
        side = self._side
        canvas.text(x, y, shortened(self.heading, 16, WIDTH), 16)
        for place, column in enumerate(self.columns):
            left = x + place % self.across * (side + SPACE)
            top = y + self._top + place // self.across * self._step
            canvas.text(left + side / 2, top, column.label, 16, column.colour, "m")
            if column.explained is not None:
                canvas.text(left + side / 2, top + 22, f"explained {_number(column.explained)}", 13, MUTED, "m")
            for index, image in enumerate(column.images):
                canvas.picture(left, top + LABELS + index * (side + SPACE), image, side, side)

    @property
    def _side(self) -> int:
        """Of an image's box."""
        return (WIDTH + SPACE) // self.across - SPACE

    @property
    def _step(self) -> int:
        """From the top of a column to that of the one below it."""
        return LABELS + max(len(column.images) for column in self.columns) * (self._side + SPACE)

    @property
    def _top(self) -> int:
        return HEADING if self.heading else 0


def blocks(pictures: Mapping[str, Sequence[Image.Image]], figures: Fidelity | None, context: str) -> tuple[Block, ...]:
    """All there is to draw. `context` is the one that images are made in; empty: it is not told."""
    if not pictures:
        return ()
    made = []
    if "prompt" in pictures:
        alone = _columns(pictures, COLUMNS, _alone(figures) if figures else {})
        made.append(Block(alone, len(alone) if len(alone[0].images) > 1 else 2))  # those of one seed are larger
    if in_context("prompt") in pictures:
        images = {row: pictures[in_context(row)] for row in THERE}
        heading = f"among other words: {context}" if context else "among other words"
        there = _columns(images, THERE, _there(figures) if figures else {})
        made.append(Block(there, len(there), heading))
    return tuple(made)


def _columns(
    pictures: Mapping[str, Sequence[Image.Image]],
    rows: Sequence[str] | Mapping[str, str],
    explained: Mapping[str, float],
) -> list[Column]:
    return [
        Column(COLUMNS[row], explained.get(row), pictures[row], BLUE if row == "embedding" else INK) for row in rows
    ]


def _alone(figures: Fidelity) -> dict[str, float]:
    """What each row explains."""
    return {
        "prompt": 1,
        "embedding": figures.explained,
        "without weights": figures.explained_without_weights,
        "empty": 0,
    }


def _there(figures: Fidelity) -> dict[str, float]:
    """What each row explains in the context that images are made in, as far as there is anything to explain."""
    errors = next((row for row in figures.contexts if row["context"] == figures.pictured_context), {"nothing": 0})
    if not errors["nothing"]:
        return {}
    return {"prompt": 1, **{row: 1 - errors[row] / errors["nothing"] for row in THERE[1:]}}


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"
