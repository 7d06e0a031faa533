"""`convert`: writes an embedding file in another format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from embedding_estimate.cli.notes import note
from embedding_estimate.cli.options import PathType
from embedding_estimate.cli.printing import show
from embedding_estimate.errors import SettingsError
from embedding_estimate.files import names

FORMATS = ("safetensors", "pt")


@click.command
@click.argument("file", type=PathType())
@click.option(
    "--to", "kind", type=click.Choice(FORMATS, case_sensitive=False), required=True, help="The format to write."
)
@click.option(
    "--out",
    type=PathType(),
    metavar="PATH",
    help="The file to write, or the folder to write it in.  [default: beside FILE, under its name]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def convert(file: Path, kind: str, out: Path | None, overwrite: bool) -> None:
    """Writes the embedding in FILE in another format. The record of how it was made is kept.

    Reads files of other tools too, also pictures with an embedding in them. A .pt can hold an embedding for SD1 or
    SD2, but not for SDXL.
    """
    from embedding_estimate.files.embedding import read, write

    embedding = read(file)
    place = file.parent if out is None else out
    if place.is_dir():
        place = place / f"{embedding.name}.{kind}"
    elif place.suffix.lower() != f".{kind}":
        raise SettingsError([f"--out {place} does not end in .{kind}: give it that ending, or the folder of the file"])
    write(replace(embedding, name=place.stem), place, overwrite=overwrite)
    show(f"{place}: {embedding.tokens} vectors, {' and '.join(embedding.vectors)}")
    if line := names.uncallable(place.stem):
        note(line)
    if place != file and place.parent.resolve() == file.parent.resolve() and place.stem == embedding.name:
        note(f"{file.name} has the same name: a WebUI that finds both files uses only one; move one away")
