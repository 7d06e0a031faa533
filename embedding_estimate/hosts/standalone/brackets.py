"""Decides which brackets of a prompt are a schedule or an alternation, and which are plain text.

`read` takes linear time, on malformed text too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeAlias

_LEXEME = re.compile(r"[\[\]():|]|(?:[^\\\[\]():|]|\\.)+")
_EXPONENT = r"[eE][+-]?[0-9]+"
_WHEN = re.compile(rf"\s*([+-]?(?:[0-9]+{_EXPONENT}|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:{_EXPONENT})?|[0-9]+))\s*")
_CLOSES = {")": "(", "]": "["}
_SIGNS = frozenset("()[]:|")


@dataclass(frozen=True, eq=False)
class Pair:
    """A bracket pair whose inside can be read: `choices` is what it offers, for an emphasis only itself."""

    opener: str
    inside: list[Item]
    closer: str
    choices: list[list[Item]] = field(default_factory=list)
    when: str | None = None

    @property
    def alternates(self) -> bool:
        return bool(self.choices) and self.when is None

    def until(self, evaluations: int) -> int:
        """The last evaluation of a schedule's first text: a fraction of all where the number has a point."""
        assert self.when is not None
        number = float(self.when) * (evaluations if "." in self.when else 1)
        return int(max(-1, min(number, evaluations)))

    def at(self, evaluation: int, evaluations: int) -> list[Item]:
        if self.when is not None:
            return self.choices[evaluation > self.until(evaluations)]
        if self.choices:
            return self.choices[(evaluation - 1) % len(self.choices)]
        return [self.opener, *self.inside, self.closer]


Item: TypeAlias = "str | Pair"


def read(text: str) -> list[Item] | None:
    """The text as words, signs and bracket pairs; None if the whole prompt has no schedule."""
    items = _paired(text)
    return None if items is None else _settled(items)


def _paired(text: str) -> list[Item] | None:
    """The items with their brackets paired."""
    items: list[Item] = []
    opened: list[int] = []  # where open brackets stand among the items
    position = 0
    while position < len(text):
        match = _LEXEME.match(text, position)
        if match is None:
            return None
        sign, position = match[0], match.end()
        if sign in ("(", "["):
            opened.append(len(items))
        elif sign in _CLOSES and opened and items[opened[-1]] == _CLOSES[sign]:
            start = opened.pop()
            pair = _pair(items, start, sign)
            if pair is not None:
                items[start:] = [pair]
                continue
        elif sign in _CLOSES:
            opened = []  # no pair can reach across this bracket
        items.append(sign)
    return None if "|" in items else items


def _pair(items: list[Item], start: int, closer: str) -> Pair | None:
    """The pair that opens at `start`; None if its inside has no known form, so that its brackets are text.

    It reads only as far as the next sign, so nested brackets are not read again for each level.
    """
    opener = "[" if closer == "]" else "("
    parts: list[list[Item]] = [[]]
    separators = set()
    for place in range(start + 1, len(items)):
        item = items[place]
        if item == ":" or item == "|":
            separators.add(item)
            parts.append([])
        elif item in _SIGNS:
            return None
        else:
            parts[-1].append(item)
    inside = items[start + 1 :]
    if not separators or (opener == "(" and separators == {":"} and len(parts) == 2):
        return Pair(opener, inside, closer)
    if opener == "(" or len(separators) == 2:
        return None
    if separators == {"|"}:
        return Pair(opener, inside, closer, parts)
    *texts, last = parts
    number = _WHEN.fullmatch(last[0]) if len(last) == 1 and isinstance(last[0], str) else None
    if number is None or len(texts) > 2:
        return None
    return Pair(opener, inside, closer, [[], *texts][-2:], number[1])


def _settled(items: list[Item]) -> list[Item]:
    """Decides from the right which pairs come right before stray brackets and colons, and turns the others into text.

    "[a:3])" is a schedule and "[a:3]))" is not. The WebUI's own grammar is ambiguous there; this is how its parser,
    lark 1.3, resolves it (with 1.1.2 the outcome changes from one start of the WebUI to the next).
    """
    settled: list[Item] = []  # from right to left
    left = list(items)
    while left:
        item = left.pop()
        if isinstance(item, Pair) or item not in _SIGNS:
            settled.append(item)
            continue
        run: list[str] = [item]
        closed: list[tuple[Pair, int] | None] = [None]  # the pair that a sign closes, what is left of it
        while left:
            item = left[-1]
            if isinstance(item, Pair) and not item.alternates:
                left.pop()
                closed.append((item, len(left)))
                run.append(item.closer)
                left += [item.opener, *item.inside]
            elif isinstance(item, str) and item in _SIGNS:
                left.pop()
                closed.append(None)
                run.append(item)
            else:
                break
        depth = next((d for d, pair in enumerate(reversed(closed)) if pair is None), len(closed))
        kept = _kept(len(run), depth, left, closed[-1])
        if kept:
            pair, before = closed[-kept] or (None, 0)
            assert pair is not None
            left[before:] = [pair]
            del run[-kept:]
        settled += run
    return settled[::-1]


def _kept(length: int, depth: int, left: list[Item], innermost: tuple[Pair, int] | None) -> int:
    """How many signs of a run stay closers: `depth` of its `length` signs close readable pairs, from the first.

    Which way lark decides hangs on the parity of the run and of what it read since the sign before.
    """
    if innermost is None:
        return 0
    read = 0
    for item in reversed(left):
        if isinstance(item, Pair):
            if not item.alternates:
                break
            read += 1
        elif item in _SIGNS:
            break
        else:
            read += 2 if item[0].isspace() and not item.isspace() else 1  # it reads leading spaces apart
    if innermost[0].when is not None or read % 2 == 1:
        return max(1, depth - depth % 2) if length % 2 == 0 else 0
    return depth - 1 + depth % 2 if length % 2 == 1 else 0
