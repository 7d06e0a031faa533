"""Prints lines on the terminal. Names, prompts and paths come from elsewhere, so control characters are written out."""

from __future__ import annotations

import click

from embedding_estimate.errors import printable


def show(text: object, *, err: bool = False) -> None:
    """Prints lines; on stderr with `err`."""
    click.echo("\n".join(map(printable, str(text).split("\n"))), err=err)
