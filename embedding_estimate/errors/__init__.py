"""Everything this package raises on purpose. Each message is one clear line: the value, the rule, the way out.

EstimateError
├── SettingsError     settings out of range or in contradiction; lists every problem
├── PromptError       a prompt that the chosen training part cannot match
├── NameTaken         an embedding of that name exists and may not be overwritten
├── EmbeddingError    an embedding file that cannot be read, written or used with this model
├── ModelError        a model that cannot be loaded or is of an unsupported kind
├── Busy              another job has the model
└── Interrupted       the job was stopped and nothing is to be kept
"""

from __future__ import annotations

import difflib
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

QUOTED = 80  # characters of a value in a message
FEW = 5  # lines about problems of one kind


def printable(text: str) -> str:
    """One line of text without characters that would steer a terminal or that UTF-8 cannot write. Spaces of all scripts
    stay. For text that somebody else may have made."""
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode() for c in text
    )


def shortened(text: str, most: int = 40) -> str:
    """The text, or its beginning and "..." if it has more than `most` characters. For quotes in messages."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


class EstimateError(Exception):
    """Base of all: catch this to show one line instead of a traceback. What the line quotes is made `printable`."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class SettingsError(EstimateError):
    """Lists every problem at once, so that a form can be corrected in one go.

    `problems` holds the lines; the message is all of them, one per line.
    """

    def __init__(self, problems: Sequence[str]):
        self.problems = [printable(problem) for problem in problems]
        Exception.__init__(self, "\n".join(self.problems))


class PromptError(EstimateError):
    """The prompt uses something that the training part cannot match."""


class NameTaken(EstimateError):
    """An embedding of that name exists and overwriting was not asked for."""


class EmbeddingError(EstimateError):
    """An embedding file cannot be read, written or used with the loaded model."""


class ModelError(EstimateError):
    """A model cannot be loaded, or is of a kind that is not supported."""


class Busy(EstimateError):
    """Another job is running; there is one model and one job at a time."""


class Interrupted(EstimateError):
    """The job was stopped and its result discarded."""


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = QUOTED

    def repr_int(self, number: int, level: int) -> str:
        if number.bit_length() > 8 * QUOTED:  # Python refuses to spell thousands of digits
            return f"a number of {number.bit_length():,} bits"
        return super().repr_int(number, level)


def quoted(value: Any) -> str:
    """A value as Python writes it, for a message. The middle of a long value is left out."""
    return _Short().repr(value)


def few(lines: Sequence[str], others: str) -> list[str]:
    """The first `FEW` lines, and one line with the number of the others: "7 more ...", where `others` says what they
    are."""
    rest = len(lines) - FEW
    return [*lines[:FEW], f"{rest:,} more {others}"] if rest > 0 else list(lines)


def nearest(value: str, choices: Iterable[str]) -> str:
    """What to do about an unknown name, for the end of a message: the most similar choices, or all choices if none is
    similar."""
    known = list(choices)
    lowered = {choice.lower(): choice for choice in known}
    typed = value[:QUOTED].lower()  # no choice is longer
    near = [lowered[match] for match in difflib.get_close_matches(typed, lowered, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
