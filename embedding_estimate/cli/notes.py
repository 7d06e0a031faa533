"""Notes on stderr."""

from __future__ import annotations

from collections.abc import Iterable

import click

from embedding_estimate.errors import printable


def note(text: object) -> None:
    """Prints a note on stderr."""
    click.echo(printable(f"Note: {text}"), err=True)


class Notes:
    """Prints notes as they come, each only once."""

    def __init__(self) -> None:
        self._printed: set[str] = set()

    def __call__(self, notes: Iterable[str]) -> None:
        for line in notes:
            if line not in self._printed:
                self._printed.add(line)
                note(line)
