"""`--contexts FILE`: the user's own prompts to measure in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_estimate.cli.options import PathType
from embedding_estimate.errors import SettingsError, few
from embedding_estimate.model.contexts import problems
from embedding_estimate.settings import LONGEST_PROMPT, PARAMETERS, Settings

if TYPE_CHECKING:
    from embedding_estimate.model.host import BorrowedModel

TEMPLATES = next(parameter for parameter in PARAMETERS if parameter.name == "templates")  # as long, and as many
MOST_BYTES = 4 * LONGEST_PROMPT  # of the longest text in UTF-8


def read(file: Path) -> tuple[str, ...]:
    """The prompts in a text file, one per line, each with `{}` where the name stands. Blank lines are skipped.

    A prompt that occurs twice is taken once. Raises `SettingsError` with a line for each problem.
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
        raise SettingsError([f"{name}: byte {error.start + 1:,} is not UTF-8; save it as UTF-8 text"]) from error
    if len(data) > MOST_BYTES:
        raise SettingsError([f"{name} has more than {MOST_BYTES:,} bytes: leave lines out"])
    if excess := replace(TEMPLATES, name=name).excess(text):
        raise SettingsError([excess])
    lines = {number: line.strip() for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    if not lines:
        raise SettingsError([f"{name} is empty: write a prompt on each line, with {{}} where the name stands"])
    wrong = [f"{name}, line {number}: {problem}" for number, line in lines.items() for problem in problems([line])]
    if wrong:
        raise SettingsError(few(wrong, "lines cannot be contexts"))
    return tuple(dict.fromkeys(lines.values()))


def flattering(
    contexts: Sequence[str], provenance: Mapping[str, Any], settings: Settings, model: BorrowedModel
) -> list[str]:
    """`advice.of_contexts` for an embedding that was made with the settings in its file; empty if the file has none."""
    recorded = provenance.get("settings")
    if not isinstance(recorded, Mapping) or "templates" not in recorded:
        return []
    trained = ("templates", "use", "part", "prompt_type")
    made = replace(settings, **{name: recorded[name] for name in trained if name in recorded})
    if made.problems():
        return []
    from embedding_estimate.checks import advice
    from embedding_estimate.teaching.teacher import Task, Teacher

    return advice.of_contexts(contexts, made, Teacher(model, Task.of(made, model)))


contexts_option = click.option(
    "--contexts",
    type=PathType(),
    callback=lambda context, option, file: () if file is None else read(file),
    metavar="FILE",
    help="A text file with your own prompts to measure in, one per line, {} where the name "
    "stands. To train in prompts of your own, see --templates.",
)
