"""The WebUI's prompt language as pure text: composition, schedules, emphasis.

It behaves as AUTOMATIC1111 1.10.1 does, on malformed prompts too. Three readings follow each other:
`compose` splits by `AND`, `schedule` unrolls `[from:to:when]` and `[a|b]`, `emphasise` reads the weights.
All three take linear time on well-formed text and none of them knows a token or a tensor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple, TypeAlias

_AND = re.compile(r"\bAND\b")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_PART_WEIGHT = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")
_EMPHASIS = re.compile(
    r"\\(?P<escaped>[\\()\[\]]?)"
    r"|:\s*(?P<weight>[+-]?[.\d]+)\s*\)"
    r"|(?P<mark>[()\[\]])"
    r"|(?P<text>:|[^\\()\[\]:]+)"
)
_LEXEME = re.compile(r"[\[\]():|]|(?:[^\\\[\]():|]|\\.)+")
_EXPONENT = r"[eE][+-]?[0-9]+"
_WHEN = re.compile(rf"\s*([+-]?(?:[0-9]+{_EXPONENT}|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:{_EXPONENT})?|[0-9]+))\s*")
_CLOSES = {")": "(", "]": "["}
_SIGNS = frozenset("()[]:|")


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


def emphasise(text: str) -> list[Segment]:
    """Text and weights: `(x)` multiplies by 1.1, `(x:1.4)` by 1.4, `[x]` divides by 1.1, `\\` escapes.

    A bracket that is never closed reaches to the end, one that was never opened is text, and so is a weight
    that is no number (`(x:1.2.3)`, over which the WebUI itself stumbles).

    >>> emphasise("a (red:1.5) hat")
    [Segment(text='a ', weight=1.0), Segment(text='red', weight=1.5), Segment(text=' hat', weight=1.0)]
    """
    texts: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # where each open bracket's text begins

    def scale(start: int, factor: float) -> None:
        weights[start:] = [weight * factor for weight in weights[start:]]

    for match in _EMPHASIS.finditer(text):
        mark, number = match["mark"], _number(match["weight"])
        if match["escaped"] is not None:
            texts.append(match["escaped"])
            weights.append(1.0)
        elif mark in opened:
            opened[mark].append(len(texts))
        elif number is not None and opened["("]:
            scale(opened["("].pop(), number)
        elif mark == ")" and opened["("]:
            scale(opened["("].pop(), 1.1)
        elif mark == "]" and opened["["]:
            scale(opened["["].pop(), 1 / 1.1)
        else:
            first, *rest = _BREAK.split(match[0])
            texts.append(first)
            weights.append(1.0)
            for part in rest:
                texts += "BREAK", part
                weights += -1.0, 1.0

    for start in opened["("]:
        scale(start, 1.1)
    for start in opened["["]:
        scale(start, 1 / 1.1)
    if not texts:
        return [Segment("", 1.0)]
    groups = groupby(zip(texts, weights, strict=True), key=lambda pair: pair[1])
    return [Segment("".join(text for text, _ in group), weight) for weight, group in groups]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


@dataclass(frozen=True, eq=False)
class _Pair:
    """A bracket pair whose inside can be read: `choices` is what it offers, for an emphasis only itself."""

    opener: str
    inside: list[_Item]
    closer: str
    choices: list[list[_Item]] = field(default_factory=list)
    when: str | None = None

    @property
    def alternates(self) -> bool:
        return bool(self.choices) and self.when is None

    def until(self, evaluations: int) -> int:
        """The last evaluation of a schedule's first text: a fraction of all where the number has a point."""
        assert self.when is not None
        number = float(self.when) * (evaluations if "." in self.when else 1)
        return int(max(-1, min(number, evaluations)))

    def at(self, evaluation: int, evaluations: int) -> list[_Item]:
        if self.when is not None:
            return self.choices[evaluation > self.until(evaluations)]
        if self.choices:
            return self.choices[(evaluation - 1) % len(self.choices)]
        return [self.opener, *self.inside, self.closer]


_Item: TypeAlias = "str | _Pair"


def schedule(text: str, evaluations: int) -> list[tuple[int, str]]:
    """What a prompt says over the sampling: (last 0-based denoiser evaluation, text), in order.

    `[from:to:when]`, `[to:when]` and `[from::when]` change at `when`, `[a|b]` changes at each evaluation. The last
    stage ends at `evaluations`. A `|` outside of a readable bracket, or a backslash with nothing to escape,
    switches schedules off for the whole prompt.

    >>> schedule("a [cat:dog:0.5]", 10)
    [(5, 'a cat'), (10, 'a dog')]
    """
    items = _read(text)
    if items is None:
        return [(evaluations, text)]
    items = _settle(items)
    ends = {evaluations}
    pairs = [item for item in items if isinstance(item, _Pair)]
    for pair in pairs:  # no recursion: a prompt may nest thousands
        pairs += [item for item in pair.inside if isinstance(item, _Pair)]
        if pair.alternates:
            ends.update(range(1, evaluations + 1))
        elif pair.when is not None and pair.until(evaluations) >= 1:
            ends.add(pair.until(evaluations))
    return [(end, _spell(items, end, evaluations)) for end in sorted(ends)]


def _read(text: str) -> list[_Item] | None:
    """Pairs up the brackets. None where the prompt as a whole is no schedule."""
    items: list[_Item] = []
    outer: list[tuple[str, list[_Item]]] = []  # open brackets, each with the items before it
    position = 0
    while position < len(text):
        match = _LEXEME.match(text, position)
        if match is None:
            return None
        sign, position = match[0], match.end()
        if sign in ("(", "["):
            outer.append((sign, items))
            items = []
        elif sign in _CLOSES and outer and outer[-1][0] == _CLOSES[sign]:
            opener, before = outer.pop()
            pair = _pair(opener, items, sign)
            before += [opener, *items, sign] if pair is None else [pair]
            items = before
        elif sign in _CLOSES:
            items = [*_unclosed(outer, items), sign]  # no pair can reach across this bracket
            outer = []
        else:
            items.append(sign)
    items = _unclosed(outer, items)
    return None if "|" in items else items


def _unclosed(outer: list[tuple[str, list[_Item]]], items: list[_Item]) -> list[_Item]:
    flat: list[_Item] = []
    for opener, before in outer:
        flat += [*before, opener]
    return flat + items


def _pair(opener: str, inside: list[_Item], closer: str) -> _Pair | None:
    """The pair, or None where its inside fits no form: then its brackets are text."""
    parts: list[list[_Item]] = [[]]
    separators = set()
    for item in inside:
        if item == ":" or item == "|":
            separators.add(item)
            parts.append([])
        elif item in _SIGNS:
            return None
        else:
            parts[-1].append(item)
    if not separators or (opener == "(" and separators == {":"} and len(parts) == 2):
        return _Pair(opener, inside, closer)
    if opener == "(" or len(separators) == 2:
        return None
    if separators == {"|"}:
        return _Pair(opener, inside, closer, parts)
    *texts, last = parts
    number = _WHEN.fullmatch(last[0]) if len(last) == 1 and isinstance(last[0], str) else None
    if number is None or len(texts) > 2:
        return None
    return _Pair(opener, inside, closer, [[], *texts][-2:], number[1])


def _settle(items: list[_Item]) -> list[_Item]:
    """Decides, from the right, which readable pairs stand right before stray brackets and colons become text.

    "[a:3])" is a schedule and "[a:3]))" is not. The WebUI's own grammar is ambiguous there; this is how its
    parser, lark 1.3, resolves it (with 1.1.2 the outcome changes from one start of the WebUI to the next).
    """
    settled: list[_Item] = []  # from right to left
    left = list(items)
    while left:
        item = left.pop()
        if isinstance(item, _Pair) or item not in _SIGNS:
            settled.append(item)
            continue
        run: list[str] = [item]
        closed: list[tuple[_Pair, int] | None] = [None]  # the pair that a sign closes, what is left of it
        while left:
            item = left[-1]
            if isinstance(item, _Pair) and not item.alternates:
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


def _kept(length: int, depth: int, left: list[_Item], innermost: tuple[_Pair, int] | None) -> int:
    """How many signs of a run stay closers: `depth` of its `length` signs close readable pairs, from the first.

    Which way lark decides hangs on the parity of the run and of what it read since the sign before.
    """
    if innermost is None:
        return 0
    read = 0
    for item in reversed(left):
        if isinstance(item, _Pair):
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


def _spell(items: list[_Item], evaluation: int, evaluations: int) -> str:
    spelled = []
    left = items[::-1]
    while left:
        item = left.pop()
        if isinstance(item, _Pair):
            left += reversed(item.at(evaluation, evaluations))
        else:
            spelled.append(item)
    return "".join(spelled)
