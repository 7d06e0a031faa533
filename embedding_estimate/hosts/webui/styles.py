"""What is typed for a result, saved as one of the WebUI's styles."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

from embedding_estimate.errors import EmbeddingError


def save(name: str, phrase: str, negative: bool) -> str:
    """Saves a style that types a phrase on its side of the guidance, under the name or one like it that is free.

    Returns one line of what was done. A style that is there stays as it is. Raises `EmbeddingError` where the WebUI
    cannot write its styles.
    """
    from modules import shared, styles

    database = shared.prompt_styles
    prompts = ("", phrase) if negative else (phrase, "")
    for free in _names(name):
        there = database.styles.get(free)
        if there is None:
            break
        if (there.prompt or "", there.negative_prompt or "") == prompts:  # None in headings
            return f"the style {free} is there already"
    database.styles[free] = styles.PromptStyle(free, *prompts)
    try:
        _write(database)
    except OSError as error:
        del database.styles[free]
        reason = error.strerror or error
        raise EmbeddingError(f"{free}: the WebUI cannot write its styles ({reason}); free some space") from error
    return f"saved as the style {free}" if free == name else f"saved as the style {free}, for {name} is another"


def names() -> list[str]:
    """Those of all styles."""
    from modules import shared

    return list(shared.prompt_styles.styles)


def _names(name: str) -> Iterator[str]:
    yield name
    for number in itertools.count(2):
        yield f"{name} ({number})"


def _write(database: Any) -> None:
    """All styles, as the WebUI's own button does: before 1.6 it has to be told the file."""
    from modules import shared

    path = inspect.signature(database.save_styles).parameters.get("path")
    if path is not None and path.default is path.empty:
        database.save_styles(shared.styles_filename)
    else:
        database.save_styles()
