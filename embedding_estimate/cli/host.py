"""The options that choose the model, and loading it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedding_estimate.cli.notes import note
from embedding_estimate.cli.options import PathType
from embedding_estimate.errors import EmbeddingError, ModelError, quoted

if TYPE_CHECKING:
    import torch

    from embedding_estimate.files.embedding import Embedding
    from embedding_estimate.hosts.standalone.host import StandaloneHost

Command = TypeVar("Command", bound=Callable[..., Any])

EMPHASIS = ("Original", "No norm", "Ignore", "None")


@dataclass(frozen=True)
class HostOptions:
    """The options of the model; None for an option that was not typed."""

    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    emphasis: str | None = None
    clip_skip: int | None = None
    embeddings: Path | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> HostOptions:
        """Those of a command's options that concern the model."""
        return cls(**{field.name: options[field.name] for field in fields(cls)})

    def to_dict(self) -> dict[str, str | int | None]:
        """As JSON values that mean the same in another folder."""
        model, embeddings = self.model, self.embeddings
        return {
            **vars(self),
            "model": str(Path(model).resolve()) if model and Path(model).exists() else model,
            "embeddings": str(embeddings.resolve()) if embeddings else None,
        }

    def filled_up(self, kept: Mapping[str, Any]) -> HostOptions:
        """With what `to_dict` of others returned in the place of what was not typed."""
        typed = {name: value for name, value in vars(self).items() if value is not None}
        options = {**kept, **typed}
        return HostOptions(
            **{**options, "embeddings": Path(options["embeddings"])} if options.get("embeddings") else options
        )

    def like(self, provenance: Mapping[str, Any]) -> HostOptions:
        """Adds the clip skip and emphasis mode that an embedding was made for, unless they were typed."""
        clip_skip, emphasis = provenance.get("clip_skip"), provenance.get("emphasis")
        return replace(
            self,
            clip_skip=clip_skip if self.clip_skip is None and isinstance(clip_skip, int) else self.clip_skip,
            emphasis=emphasis if self.emphasis is None and emphasis in EMPHASIS else self.emphasis,
        )


def host_options(command: Command) -> Command:
    """Adds the model's options to a command. They arrive under the names of `HostOptions`."""
    options = (
        click.option(
            "--model", help="A folder, a .safetensors checkpoint or a hub name.  [default: the bundled model]"
        ),
        click.option("--device", help="cpu, cuda or mps.  [default: the fastest available]"),
        click.option(
            "--dtype",
            type=click.Choice(["fp32", "fp16", "bf16"], case_sensitive=False),
            help="Precision of the U-Net; vectors and text encoder are fp32.  [default: fp16 on cuda, otherwise fp32]",
        ),
        click.option(
            "--emphasis",
            type=click.Choice(EMPHASIS, case_sensitive=False),
            help="Emphasis mode: how weights are applied, as in the WebUI's settings.  [default: Original]",
        ),
        click.option(
            "--clip-skip",
            type=int,
            help="Layer of SD1's text encoder to use, counted from the last, as in the WebUI.  [default: 1]",
        ),
        click.option(
            "--embeddings",
            type=PathType(),
            metavar="DIR",
            help="A folder of embeddings that prompts can use.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def load(options: HostOptions) -> StandaloneHost:
    """Loads the model. Raises `EstimateError`, in one line, if it cannot be used."""
    embeddings = _embeddings(options.embeddings) if options.embeddings else {}
    click.echo("loading the model", err=True)
    host = _load(options)
    for name, embedding in embeddings.items():
        try:
            host.add_embedding(name, embedding.fit(host.info.widths).vectors)
        except EmbeddingError as error:  # for another kind of model
            note(error)
    return host


def _load(options: HostOptions) -> StandaloneHost:
    import torch

    from embedding_estimate.demo import demo_model_path
    from embedding_estimate.hosts.standalone.host import StandaloneHost

    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    return StandaloneHost.load(
        demo_model_path() if options.model is None else options.model,
        device=_device(options.device),
        dtype=dtypes[options.dtype] if options.dtype else None,
        emphasis=options.emphasis or "Original",
        clip_skip=1 if options.clip_skip is None else options.clip_skip,
    )


def _device(name: str | None) -> torch.device | None:
    import torch

    try:
        return None if name is None else torch.zeros(1, device=name).device
    except Exception as error:  # each kind of device raises its own exception
        raise ModelError(f"device={quoted(name)}: torch cannot use it here; choose cpu, or leave it out") from error


def _embeddings(folder: Path) -> dict[str, Embedding]:
    """The embeddings of a folder by name. Prints a note for each file that is none and each name that
    cannot be called."""
    from embedding_estimate.files import names
    from embedding_estimate.files.embedding import read_folder

    if not folder.is_dir():
        raise EmbeddingError(f"{folder}: is not a folder; give --embeddings a folder of embedding files")
    embeddings, skipped = read_folder(folder)
    for _, reason in skipped:
        note(reason)
    for name in embeddings:
        if line := names.uncallable(name):
            note(line)
    return {name: embedding for name, embedding in embeddings.items() if names.is_text(name)}
