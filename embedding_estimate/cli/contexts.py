"""`--contexts FILE`: prompts of the user's own to measure in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from embedding_estimate.cli.options import Place
from embedding_estimate.errors import SettingsError, few, quoted
from embedding_estimate.settings import LONGEST_PROMPT, PARAMETERS, Settings

TEMPLATES = next(parameter for parameter in PARAMETERS if parameter.name == "templates")  # as long, and as many
MOST_BYTES = 4 * LONGEST_PROMPT  # of the longest text in UTF-8


def read(file: Path) -> tuple[str, ...]:
    """The prompts in a text file, one per line, each with `{}` where the name stands; blank lines are none.

    A prompt that stands there twice is one. Raises `SettingsError` with a line for what is wrong.
    """
    name = f"--contexts {file}"
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        text = data[:MOST_BYTES].decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(
            [f"{name}: cannot be read ({error.strerror}); give a text file with a prompt on each line"]
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError([f"{name}: byte {error.start + 1:,} is no UTF-8; save it as UTF-8 text"]) from error
    if len(data) > MOST_BYTES:
        raise SettingsError([f"{name} has more than {MOST_BYTES:,} bytes: leave lines out"])
    if excess := replace(TEMPLATES, name=name).excess(text):
        raise SettingsError([excess])
    lines = {number: line.strip() for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    if not lines:
        raise SettingsError([f"{name} is empty: write a prompt on each line, with {{}} where the name stands"])
    bare = [
        f"{name}, line {number}: {quoted(line)} has no {{}}; write {{}} where the name stands"
        for number, line in lines.items()
        if "{}" not in line
    ]
    if bare:
        raise SettingsError(few(bare, "lines have no {}"))
    return tuple(dict.fromkeys(lines.values()))


def made_with(provenance: Mapping[str, Any], settings: Settings) -> Settings:
    """The settings with the contexts that a file says it was trained in. Where it does not say, they are none but the
    bare name."""
    told = provenance.get("settings")
    told = told if isinstance(told, Mapping) and "templates" in told else {"templates": "{}"}
    made = replace(settings, **{name: told[name] for name in ("templates", "part", "prompt_type") if name in told})
    return replace(settings, templates="{}") if made.problems() else made


contexts_option = click.option(
    "--contexts",
    type=Place(),
    callback=lambda context, option, file: () if file is None else read(file),
    metavar="FILE",
    help="Measure in prompts of your own, one per line, {} where the name stands. They are not trained in: "
    "see --templates.",
)
