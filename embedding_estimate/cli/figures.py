"""Figures in words, as a table and as JSON."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from embedding_estimate.estimation import summary
from embedding_estimate.fidelity import wording

if TYPE_CHECKING:
    from embedding_estimate.fidelity.protocol import Fidelity


def show_figures(figures: Fidelity, tokens: int) -> None:
    """The figures with their baselines and what they mean."""
    for row in wording.rows(figures, tokens):
        label = f"  {row.label}" if row.baseline else row.label
        click.echo(f"  {label:<20}{row.number:>6}   {row.meaning}")


def print_line(text: str) -> None:
    """Prints while there is more to do than to print: where the reader has left, it is done all the same."""
    try:
        click.echo(text)
    except BrokenPipeError:
        sys.stdout = io.StringIO()


def print_json(values: Mapping[str, Any]) -> None:
    """One line; what is not finite becomes null, which JSON has no number for."""
    click.echo(json.dumps(summary.finite(values), allow_nan=False))
