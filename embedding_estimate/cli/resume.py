"""`estimate --resume NAME`: an estimate that was cut off goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_estimate.cli.host import HostOptions
from embedding_estimate.cli.options import ARGUMENT
from embedding_estimate.errors import SettingsError, quoted
from embedding_estimate.settings import Settings

if TYPE_CHECKING:
    from embedding_estimate.files.tensor_tree import Tree

FREE = ("overwrite",)  # may differ from what it was


@dataclass(frozen=True)
class Resumed:
    """An estimate that goes on, as its state tells."""

    settings: Settings
    hosted: HostOptions
    contexts: Sequence[str]
    state: Tree


def refuse_beside(given: Mapping[str, bool]) -> None:
    """Raises `SettingsError` for options that mean something else."""
    if wrong := [option for option, is_given in given.items() if is_given]:
        raise SettingsError([f"--resume goes on with what was begun: leave {', '.join(wrong)} out"])


def resumed(name: str, folder: Path, typed: Mapping[str, Any], contexts: Sequence[str], hosted: HostOptions) -> Resumed:
    """The estimate of that name that was cut off, in a folder of embeddings; what was typed has to agree with it.

    Raises `EmbeddingError` if there is none or its state cannot be read, and `SettingsError` for what was typed.
    """
    from embedding_estimate.storage import resuming

    cut_off = resuming.find(folder, name)
    state = cut_off.read()
    settings = resuming.settings_of(state)
    asked = Settings.from_mapping({**settings.to_dict(), **typed})
    then, now = settings.to_dict(), asked.to_dict()
    wrong = [_differs(key, then[key], now[key]) for key in typed if then[key] != now[key] and key not in FREE]
    if contexts and list(contexts) != state["contexts"]:
        wrong.append("--contexts: it was begun with others; leave them out")
    if wrong:
        raise SettingsError(wrong)
    click.echo(f"{name} goes on from step {cut_off.step} of {cut_off.steps}", err=True)
    hosted = hosted.filled_up(state["host"]).like(state["made_with"])
    return Resumed(asked, hosted, state["contexts"], state)


def _differs(key: str, then: Any, now: Any) -> str:
    option = ARGUMENT.upper() if key == ARGUMENT else f"--{key.replace('_', '-')}"
    return f"{option} {quoted(now)}: it was begun with {quoted(then)}; leave it out, or estimate again without --resume"
