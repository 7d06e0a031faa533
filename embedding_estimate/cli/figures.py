"""Figures in words, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

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
    weights = "the prompt's weights do next to nothing, so there is no figure"
    if figures.emphasis_explained is not None:
        weights = "of what the weights add to the bare words"
    rows = [
        ("explained", figures.explained, "of what the prompt does to the model; 1 is the prompt itself"),
        ("  bare words", figures.explained_without_weights, "the same prompt, every weight 1"),
        ("  cut to fit", figures.explained_truncated, f"the first {tokens} of its own token vectors, untrained"),
        ("emphasis explained", figures.emphasis_explained, weights),
        ("in other prompts", figures.in_template, "explained, with other words around it"),
    ]
    if figures.image_distance is not None:
        rows.append(("image distance", figures.image_distance, "same-seed images: 0 the prompt's, 1 as far as empty"))
    for label, value, meaning in rows:
        click.echo(f"  {label:<20}{_number(value):>6}   {meaning}")


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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def printable(text: str) -> str:
    """Text of a file that somebody else made, without what would steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
