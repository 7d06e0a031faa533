"""What is declared about a setting: type, bounds, default, label and help text."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedding_estimate.errors import FEW, SettingsError, nearest, quoted


@dataclass(frozen=True)
class Parameter:
    """The declaration of one setting. Command line, tab, API and documents are made from it."""

    name: str
    kind: type  # str, int, float or bool
    default: Any
    label: str
    help: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]  # empty: free text or a number
    removed: tuple[str, ...]  # choices of earlier versions, which older files may name
    longest: int | None  # characters of a text
    lines: int  # the most entries of a setting that takes one per line; 0: it takes one text

    def problem(self, value: Any) -> str | None:
        """One line on what is wrong with a value (the value, the rule, the way out), or None if it is valid."""
        if self.kind in (int, float):
            return self._number_problem(value)
        if not isinstance(value, self.kind):
            return f"{self.name}={quoted(value)}: give {_ARTICLES[self.kind]}"
        if excess := self.excess(value):
            return excess
        if self.choices and spelled(value, self.removed) in self.removed:
            return f"{self.name}={quoted(value)} is no longer offered: choose {self.default}"
        if self.choices and value not in self.choices:
            return f"{self.name}={quoted(value)} is unknown: {nearest(str(value), self.choices)}"
        return None

    def excess(self, value: Any) -> str | None:
        """One line on a text that is too long, or None. Ask it before anything else reads the text."""
        if not isinstance(value, str) or self.longest is None:
            return None
        if len(value) > self.longest:
            return f"{self.name} has {len(value):,} characters: {self.longest:,} are allowed; shorten it"
        if self.lines and (entries := len(lines(value))) > self.lines:
            return f"{self.name} has {entries:,} lines: {self.lines:,} are allowed; leave some out"
        return None

    def _number_problem(self, value: Any) -> str | None:
        accepted = (int,) if self.kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, accepted) or not finite(value):
            return f"{self.name}={quoted(value)}: give {_ARTICLES[self.kind]}"
        low, high = self.minimum, self.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            return f"{self.name}={quoted(value)} is out of range: choose {_range(low, high)}"
        return None


def spelled(value: Any, choices: Iterable[str]) -> Any:
    """The choice that equals the value in any case, as it is spelled; the value itself if there is none."""
    if not isinstance(value, str):
        return value
    return {choice.lower(): choice for choice in choices}.get(value.lower(), value)


_ARTICLES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def _range(low: float | None, high: float | None) -> str:
    if high is None:
        return f"{low:g} or more"
    return f"{low:g} to {high:,.15g}"


def setting(
    default: Any,
    label: str,
    help: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    removed: tuple[str, ...] = (),
    longest: int | None = None,
    lines: int = 0,
) -> Any:
    """A field of `Settings`: its default and the metadata that `Parameter` holds."""
    metadata = types.MappingProxyType(
        {
            "label": label,
            "help": help,
            "unit": unit,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "removed": removed,
            "longest": longest,
            "lines": lines,
        }
    )
    return dataclasses.field(default=default, metadata=metadata)


def lines(text: str) -> tuple[str, ...]:
    """The entries of a setting that takes one per line, without blank lines."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def finite(number: float) -> bool:
    """Whether a number is finite and fits a float. Unlike `math.isfinite` it takes whole numbers of any size."""
    return abs(number) <= sys.float_info.max


def read(values: Mapping[str, Any], parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Values of a form, a file or a request: whole numbers become floats where those are asked for, choices are taken
    in any case.

    Raises `SettingsError` for names that are no settings, and for texts too long to be read. It judges nothing else.
    """
    known = {parameter.name: parameter for parameter in parameters}
    if unknown := [name for name in values if name not in known]:
        raise SettingsError(_unknown_names(unknown, known))
    if excess := [line for name, value in values.items() if (line := known[name].excess(value))]:
        raise SettingsError(excess)
    return {name: _taken(value, known[name]) for name, value in values.items()}


def _taken(value: Any, parameter: Parameter) -> Any:
    whole = parameter.kind is float and type(value) is int and finite(value)
    return float(value) if whole else spelled(value, parameter.choices)


def _unknown_names(names: Sequence[str], known: Iterable[str]) -> list[str]:
    """One line for each of the first unknown names, and one for the number of all others."""
    lines = [f"{quoted(name)} is not a setting: {nearest(name, known)}" for name in names[:FEW]]
    rest = len(names) - len(lines)
    return [*lines, f"{rest:,} more names are not settings: leave them out"] if rest else lines
