"""Figures in words, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from embedding_estimate import wording

if TYPE_CHECKING:
    from embedding_estimate.fidelity import Fidelity

SHARED = (  # figures that every JSON object has
    "explained",
    "emphasis_explained",
    "explained_without_weights",
    "explained_truncated",
    "image_distance",
)


def show_figures(figures: Fidelity, tokens: int) -> None:
    """The figures with their baselines and what they mean."""
    for row in wording.rows(figures, tokens):
        label = f"  {row.label}" if row.baseline else row.label
        click.echo(f"  {label:<20}{row.number:>6}   {row.meaning}")


def figures_json(figures: Fidelity | None) -> dict[str, float | None]:
    """The figures that every JSON object has; null where they are unknown."""
    return {name: getattr(figures, name) if figures else None for name in SHARED}


def print_json(values: Mapping[str, Any]) -> None:
    """One line; what is not finite becomes null, which JSON has no number for."""
    click.echo(json.dumps(_finite(values), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str) -> str:
    """Text of a file that somebody else made, without what would steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
