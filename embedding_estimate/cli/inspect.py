"""`inspect`: shows what an embedding file holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_estimate.cli.figures import print_json
from embedding_estimate.cli.host import HostOptions, load
from embedding_estimate.cli.notes import note
from embedding_estimate.cli.options import PathType, json_option
from embedding_estimate.cli.printing import show
from embedding_estimate.fidelity.wording import typed_as
from embedding_estimate.files.names import uncallable
from embedding_estimate.settings import PARAMETERS

if TYPE_CHECKING:
    from embedding_estimate.files.listing import Listing

NEAREST = 5  # words of the model that are shown for each vector
Nearest = dict[str, list[list[dict[str, Any]]]]
DEFAULTS = {parameter.name: parameter.default for parameter in PARAMETERS}


@click.command
@click.argument("file", type=PathType())
@click.option(
    "--model",
    help="Also show the words of this model that are nearest to each vector: a folder, a "
    ".safetensors checkpoint or a hub name.",
)
@json_option
def inspect(file: Path, model: str | None, as_json: bool) -> None:
    """Shows the vectors in FILE and, if the file says so, how they were made.

    Reads files of other tools too. Code in a file is never run.
    """
    from embedding_estimate.files import listing
    from embedding_estimate.storage.phrases import lacks, recorded_phrase, recorded_weight, recorded_words

    embedding = listing.read(file)
    weight = recorded_weight(embedding.provenance)
    phrase = recorded_phrase(embedding, weight)
    nearest = None if model is None else _nearest(file, model)
    for line in _lines(embedding, phrase, nearest or {}):
        show(line)
    if embedding.name in [word.name for word in recorded_words(embedding.provenance)]:  # no snapshot or copy
        for line in lacks(embedding, file):
            note(f"{file.name}: is one word of {phrase}, but {line}")
    if as_json:
        print_json(
            {
                "path": str(file),
                "name": embedding.name,
                "tokens": embedding.tokens,
                "typed_weight": weight,
                "phrase": phrase,
                "vectors": {
                    key: {"width": embedding.widths[key], "norms": norms} for key, norms in embedding.norms.items()
                },
                **({} if nearest is None else {"nearest": nearest}),
                "provenance": embedding.provenance,
            }
        )


def _nearest(file: Path, name: str) -> Nearest:
    """For each encoder and vector the nearest words by cosine similarity, the nearest first; none for a vector of
    zeros.

    Raises `EmbeddingError` if the embedding is for another kind of model.
    """
    from embedding_estimate.files.embedding import read
    from embedding_estimate.model.vectors import nearest

    embedding = read(file)
    by_encoder: Nearest = {}
    with load(HostOptions(model=name, device="cpu")).borrow() as model:
        fitted = embedding.fit(model.info.widths)
        for key, table in model.vocabulary().items():
            tokens, similarities = nearest(fitted.vectors[key], table, NEAREST)
            by_encoder[key] = [
                [
                    {"word": model.token_text(key, token), "similarity": similarity}
                    for token, similarity in zip(ids, values, strict=True)
                    if vector.any()
                ]
                for vector, ids, values in zip(fitted.vectors[key], tokens.tolist(), similarities.tolist(), strict=True)
            ]
    return by_encoder


def _lines(embedding: Listing, phrase: str, nearest: Nearest) -> Iterator[str]:
    """The lines to print."""
    problem, half = uncallable(embedding.name), set(embedding.norms) == {"clip_g"}
    called = "" if problem or half else f", {typed_as(embedding.name, phrase)}"
    yield f"{embedding.name}: takes {embedding.tokens} of a prompt's tokens{called}"
    if problem:
        yield problem
    for key, norms in embedding.norms.items():
        yield f"  {key:<32}{len(norms)} x {embedding.widths[key]}, norms {min(norms):.3g} to {max(norms):.3g}"
    if half:
        yield "half of an SDXL embedding: the clip_l vectors are missing; get the whole file"
    yield from _nearest_lines(nearest)
    yield ""
    yield from _origin(embedding.provenance)


def _nearest_lines(nearest: Nearest) -> Iterator[str]:
    if nearest:
        yield ""
        yield "nearest words of the model, by cosine similarity"
    for key, rows in nearest.items():
        for number, words in enumerate(rows, 1):
            listed = ", ".join(f"{word['word']} {word['similarity']:.2f}" for word in words)
            yield f"  {f'{key} {number}':<32}{listed or '-'}"


def _origin(provenance: Mapping[str, Any]) -> Iterator[str]:
    """The lines about how the embedding was made."""
    entries = dict(provenance)
    if not entries:
        yield "the file does not say how it was made"
        return
    settings, figures = entries.pop("settings", None), entries.pop("fidelity", None)
    yield "made by embedding-estimate"
    for name, value in entries.items():
        yield _row(name, value)
    if isinstance(settings, dict):
        yield ""
        left_out = "" if "text" in settings else "; the prompt was left out of the file"
        yield f"settings that differ from the defaults{left_out}"
        for name, value in settings.items():
            if name not in DEFAULTS or DEFAULTS[name] != value:
                yield _row(name, value)
    if isinstance(figures, dict):
        yield ""
        yield "fidelity"
        yield from _figures(figures)


def _figures(figures: Mapping[str, Any]) -> Iterator[str]:
    """One line for each figure that there is, and one for each context."""
    contexts = figures.get("contexts")
    for name, value in figures.items():
        if name != "contexts" and value not in (None, "", {}, []):
            yield _row(name, value)
    if isinstance(contexts, list) and contexts:
        yield ""
        yield "errors by context"
        yield from (f"  {_words(context)}" for context in contexts)


def _row(name: str, value: Any) -> str:
    return f"  {name.replace('_', ' '):<38}{_words(value)}"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(entry)}" for name, entry in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ("; " if any(isinstance(entry, Mapping) for entry in value) else " ").join(map(_words, value))
    return "-" if value is None else str(value).replace("\n", " / ")
