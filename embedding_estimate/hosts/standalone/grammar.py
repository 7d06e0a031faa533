"""The WebUI's prompt language as text: composition, schedules, emphasis.

It behaves as AUTOMATIC1111 1.10.1 does, on malformed prompts too. Three steps follow each other: `compose` splits by
`AND`, `schedule` unrolls `[from:to:when]` and `[a|b]`, `emphasise` reads the weights. All three take linear time, and
none of them needs tokens or tensors.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import NamedTuple

import numpy as np

from embedding_estimate.hosts.standalone.brackets import Item, Pair, read

_AND = re.compile(r"\bAND\b")
_BREAK = re.compile(r"\bBREAK\b")
_PART_WEIGHT = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")
_EMPHASIS = re.compile(
    r"\\(?P<escaped>[\\()\[\]]?)"
    r"|:\s*(?P<weight>[+-]?[.\d]+)\s*\)"
    r"|(?P<mark>[()\[\]])"
    r"|(?P<text>:|[^\\()\[\]:]+)"
)


class Segment(NamedTuple):
    """A stretch of a prompt under one weight."""

    text: str
    weight: float

    @property
    def is_break(self) -> bool:
        """True where a new chunk begins. Emphasis around a `BREAK` changes the mark's weight too, and so
        turns it into a word: that is what the WebUI does."""
        return self.text == "BREAK" and self.weight == -1


def compose(prompt: str) -> list[tuple[str, float]]:
    """The parts that `AND` separates, each with the weight after its last colon, or 1.

    >>> compose("a cat AND a dog :0.5")
    [('a cat', 1.0), (' a dog', 0.5)]
    """
    parts = []
    for part in _AND.split(prompt):
        text, colon, number = part.rpartition(":")
        if colon and _PART_WEIGHT.fullmatch(number.strip()):
            parts.append((text.rstrip(), float(number.strip())))  # which takes more for space than float does
        else:
            parts.append((part.rstrip(), 1.0))
    return parts


CLOSING = {")": ("(", 1.1), "]": ("[", 1 / 1.1)}  # mark -> the bracket that it closes, its factor


def emphasise(text: str) -> list[Segment]:
    """Text and weights: `(x)` multiplies by 1.1, `(x:1.4)` by 1.4, `[x]` divides by 1.1, `\\` escapes.

    A bracket that is never closed reaches to the end, one that was never opened is text, and so is a weight
    that is no number (`(x:1.2.3)`, over which the WebUI itself stumbles).

    >>> emphasise("a (red:1.5) hat")
    [Segment(text='a ', weight=1.0), Segment(text='red', weight=1.5), Segment(text=' hat', weight=1.0)]
    """
    brackets = _Brackets()
    for match in _EMPHASIS.finditer(text):
        mark, number = match["mark"], _number(match["weight"])
        if match["escaped"] is not None:
            brackets.add(match["escaped"])
        elif mark in brackets.opened:
            brackets.open(mark)
        elif not brackets.close(mark, number):
            first, *rest = _divided(match[0])
            brackets.add(first)
            for part in rest:
                brackets.add("BREAK", -1.0)
                brackets.add(part)
    return brackets.segments()


class _Brackets:
    """Pieces of text, and the brackets around them."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.weights: list[float] = []
        self.opened: dict[str, list[int]] = {"(": [], "[": []}  # where each open bracket's text begins
        self.scales: list[tuple[slice, float]] = []  # brackets in the order in which they close

    def add(self, text: str, weight: float = 1.0) -> None:
        self.texts.append(text)
        self.weights.append(weight)

    def open(self, mark: str) -> None:
        self.opened[mark].append(len(self.texts))

    def close(self, mark: str | None, number: float | None) -> bool:
        """Closes a bracket by `:number)` or by a mark. Returns False if no bracket of its kind is open."""
        if number is None and mark not in CLOSING:
            return False
        kind, factor = CLOSING[mark] if number is None and mark else ("(", number or 0.0)
        if not self.opened[kind]:
            return False
        self._scale(self.opened[kind].pop(), factor)
        return True

    def segments(self) -> list[Segment]:
        """All text, with neighbours of the same weight joined. Open brackets end here."""
        for kind, factor in CLOSING.values():
            for start in self.opened[kind]:
                self._scale(start, factor)
        if not self.texts:
            return [Segment("", 1.0)]
        groups = groupby(zip(self.texts, _scaled(self.weights, self.scales), strict=True), key=lambda pair: pair[1])
        return [Segment("".join(text for text, _ in group), weight) for weight, group in groups]

    def _scale(self, start: int, factor: float) -> None:
        self.scales.append((slice(start, len(self.texts)), factor))


def _divided(text: str) -> list[str]:
    """The text between the words `BREAK`, without the spaces around them."""
    first, *rest = _BREAK.split(text)
    if not rest:
        return [first]
    return [first.rstrip(), *(part.strip() for part in rest[:-1]), rest[-1].lstrip()]


def _scaled(weights: list[float], scales: list[tuple[slice, float]]) -> list[float]:
    """The weights times the factors of the brackets around them, with one array operation for each bracket.

    Brackets of the two kinds may overlap. The order of the factors decides the last digit.
    """
    scaled = np.array(weights)
    with np.errstate(all="ignore"):  # weights may leave the finite numbers, as they do in the WebUI
        for inside, factor in scales:
            scaled[inside] *= factor
    products: list[float] = scaled.tolist()
    return products


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def schedule(text: str, evaluations: int) -> list[tuple[int, str]]:
    """What a prompt says over the sampling: (last 0-based denoiser evaluation, text), in order.

    `[from:to:when]`, `[to:when]` and `[from::when]` change at `when`, `[a|b]` changes at each evaluation. The last
    stage ends at `evaluations`. A `|` outside of a readable bracket, or a backslash with nothing to escape,
    switches schedules off for the whole prompt.

    >>> schedule("a [cat:dog:0.5]", 10)
    [(5, 'a cat'), (10, 'a dog')]
    """
    items = read(text)
    if items is None:
        return [(evaluations, text)]
    ends = {evaluations}
    pairs = [item for item in items if isinstance(item, Pair)]
    for pair in pairs:  # no recursion: a prompt may nest thousands
        pairs += [item for item in pair.inside if isinstance(item, Pair)]
        if pair.alternates:
            ends.update(range(1, evaluations + 1))
        elif pair.when is not None and pair.until(evaluations) >= 1:
            ends.add(pair.until(evaluations))
    return [(end, _spell(items, end, evaluations)) for end in sorted(ends)]


def _spell(items: list[Item], evaluation: int, evaluations: int) -> str:
    spelled = []
    left = items[::-1]
    while left:
        item = left.pop()
        if isinstance(item, Pair):
            left += reversed(item.at(evaluation, evaluations))
        else:
            spelled.append(item)
    return "".join(spelled)
