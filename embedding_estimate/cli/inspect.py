"""`inspect`: what an embedding file holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_estimate.cli.figures import print_json, printable
from embedding_estimate.cli.options import Place, json_option
from embedding_estimate.settings import PARAMETERS
from embedding_estimate.wording import typed_as

if TYPE_CHECKING:
    from embedding_estimate.embedding import Embedding

DEFAULTS = {parameter.name: parameter.default for parameter in PARAMETERS}


@click.command
@click.argument("file", type=Place())
@json_option
def inspect(file: Path, as_json: bool) -> None:
    """Prints what FILE holds: its vectors, and how they were made where it says so.

    Reads the files of any tool, and runs nothing that may be in them.
    """
    from embedding_estimate.embedding import read
    from embedding_estimate.typed import told

    embedding = read(file)
    weight = told(embedding.provenance)
    for line in _lines(embedding, weight):
        click.echo(printable(line))
    if as_json:
        print_json(
            {
                "path": str(file),
                "name": embedding.name,
                "tokens": embedding.tokens,
                "typed_weight": weight,
                "vectors": {key: {"width": t.shape[1], "norms": _norms(t)} for key, t in embedding.vectors.items()},
                "provenance": embedding.provenance,
            }
        )


def _norms(vectors: Any) -> list[float]:
    return [float(norm) for norm in vectors.norm(dim=1)]


def _lines(embedding: Embedding, weight: float) -> Iterator[str]:
    yield f"{embedding.name}: takes {embedding.tokens} of a prompt's tokens, {typed_as(embedding.name, weight)}"
    for key, vectors in embedding.vectors.items():
        norms = _norms(vectors)
        yield _row(key, f"{len(vectors)} x {vectors.shape[1]}, norms {min(norms):.3g} to {max(norms):.3g}")
    told = dict(embedding.provenance)
    if not told:
        yield ""
        yield "nothing in the file says how it was made"
        return
    settings, figures = told.pop("settings", None), told.pop("fidelity", None)
    yield ""
    yield "made by embedding-estimate"
    for name, value in told.items():
        yield _row(name, value)
    if isinstance(settings, dict):
        yield ""
        yield "settings that are not the defaults" + ("" if "text" in settings else "; the prompt was kept out")
        for name, value in settings.items():
            if name not in DEFAULTS or DEFAULTS[name] != value:
                yield _row(name, value)
    if isinstance(figures, dict):
        yield ""
        yield "fidelity"
        for name, value in figures.items():
            yield _row(name, value)


def _row(name: str, value: Any) -> str:
    return f"  {name.replace('_', ' '):<32}{_words(value)}"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(entry)}" for name, entry in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(map(_words, value))
    return "-" if value is None else str(value).replace("\n", " / ")
