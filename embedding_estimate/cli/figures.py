"""Prints figures, as a table and as JSON."""

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
    """Prints the figures with their baselines and their meaning."""
    for row in wording.rows(figures, tokens):
        label = f"  {row.label}" if row.baseline else row.label
        click.echo(f"  {label:<21}{row.number:<15} {row.meaning}")
    if figures.quick:
        click.echo("  quick figures, ± their standard error; --measure Full or `compare` measures the whole protocol")


def print_line(text: str) -> None:
    """Prints a line in the middle of the work. If nobody reads the output any more, the work goes on without it."""
    try:
        click.echo(text)
    except BrokenPipeError:
        sys.stdout = io.StringIO()


def print_json(values: Mapping[str, Any]) -> None:
    """Prints the values as one line. Numbers that are not finite become null, because JSON cannot write them."""
    click.echo(json.dumps(summary.finite(values), allow_nan=False))
