"""One word for each weight, where one embedding cannot carry several: `(x-a:1.4) (x-b:0.6) x-c`.

The host scales the rows of each word behind the text encoder, as it does with the prompt's own tokens. So each vector
gets the weight of the tokens that it stands for, and with as many vectors as tokens what is typed is the prompt itself.
Words stand in the order of their tokens, and a weight that comes back has another word: all of a weight in one word are
read out of their place, which costs more than it saves (docs/notes/experiments.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from embedding_estimate.errors import SettingsError
from embedding_estimate.files.names import LETTERS, phrase
from embedding_estimate.model.host import BorrowedModel
from embedding_estimate.settings import ONE_WORD, Settings

NEAR = 0.05  # weights this far apart at most are one word's
SEPARATORS = ", . ;"  # tokens that make no word of their own
FILLERS = " ".join((SEPARATORS, "a", "an", "the", "of", "in", "on", "at", "and", "with"))  # vectors come to them last


@dataclass(frozen=True)
class Word:
    """One of the words that are typed for a prompt."""

    weight: float  # that it is typed with
    places: tuple[int, ...]  # of the prompt's tokens whose vectors it starts from, one for each of its own

    @property
    def tokens(self) -> int:
        return len(self.places)


def planned(settings: Settings, model: BorrowedModel) -> tuple[Word, ...]:
    """The words for a text of which each stretch of one weight is to have its own; none where the settings ask for one
    word.

    `settings.tokens` vectors are dealt out by the tokens of each, 0 or too many being as many as there are tokens.
    Where they are fewer than the stretches, some of one weight share a word. Raises `SettingsError` where they are
    fewer than the weights.
    """
    if settings.words == ONE_WORD:
        return ()
    table = next(iter(model.token_vectors(settings.text).values()))  # (n, width)
    weights = model.token_weights(settings.text)
    if not weights:
        return ()
    most = min(len(weights), model.info.chunk_tokens)
    tokens = min(settings.tokens or most, most)
    separators, fillers = (
        _among(table, next(iter(model.token_vectors(each).values()))) for each in (SEPARATORS, FILLERS)
    )
    if tokens == len(weights):  # what stands there can be typed as it is
        separators = [False] * len(weights)
    groups = grouped(weights, separators, min(tokens, len(LETTERS)))
    if len(groups) > min(most, len(LETTERS)):
        raise SettingsError([f"words={settings.words!r}: the text has {len(groups)} weights, too many; choose 'One'"])
    if len(groups) > tokens:
        raise SettingsError(
            [
                f"tokens={tokens}: the text has {len(groups)} weights, each a word of its own; take {len(groups)} or "
                "more, or choose words='One'"
            ]
        )
    shares = dealt(tokens, groups, fillers)
    return tuple(
        Word(weight, _chosen(places, share, fillers)) for (weight, places), share in zip(groups, shares, strict=True)
    )


Group = tuple[float, tuple[int, ...]]  # a weight, and the places of its tokens


def grouped(weights: Sequence[float], separators: Sequence[bool], most: int) -> list[Group]:
    """The places of a text's tokens in stretches of one weight, in their order.

    Weights that are near each other are one, their mean over the tokens. Stretches of nothing but `separators` go with
    the one before them, the first with what follows. Where there are more than `most`, stretches of the same weight
    are joined, those first that take the shortest way, until each weight has one.
    """
    if all(separators):
        separators = [False] * len(separators)
    means = _merged([weight for weight, separator in zip(weights, separators, strict=True) if not separator])
    groups = _adjoined([(means.get(weight, weight), (place,)) for place, weight in enumerate(weights)])
    filled: list[Group] = []
    before: tuple[int, ...] = ()  # separators that the text begins with
    for weight, places in groups:
        if not all(separators[place] for place in places):
            filled.append((weight, (*before, *places)))
            before = ()
        elif filled:
            filled[-1] = (filled[-1][0], (*filled[-1][1], *places))
        else:
            before = places
    groups = _adjoined(filled)
    while len(groups) > most and (pairs := list(_pairs(groups))):
        groups = _adjoined(_joined(groups, *min(pairs, key=lambda pair: _way(groups, *pair))))
    return groups


def _adjoined(groups: Iterable[Group]) -> list[Group]:
    """Neighbours of one weight made one."""
    return [
        (weight, tuple(place for _, places in neighbours for place in places))
        for weight, neighbours in itertools.groupby(groups, key=lambda group: group[0])
    ]


def _pairs(groups: Sequence[Group]) -> Iterator[tuple[int, int]]:
    """The groups that have the weight of an earlier one, each with the last such."""
    last: dict[float, int] = {}
    for number, (weight, _) in enumerate(groups):
        if weight in last:
            yield last[weight], number
        last[weight] = number


def _way(groups: Sequence[Group], first: int, second: int) -> int:
    """How far tokens move where two groups are joined, the fewer of them to the others."""
    between = sum(len(places) for _, places in groups[first + 1 : second])
    return between * min(len(groups[first][1]), len(groups[second][1]))


def _joined(groups: Sequence[Group], first: int, second: int) -> list[Group]:
    """The same with two groups at the place of the one with more tokens."""
    weight, places = groups[first]
    joined = weight, (*places, *groups[second][1])
    stays, goes = (first, second) if len(places) >= len(groups[second][1]) else (second, first)
    return [joined if number == stays else group for number, group in enumerate(groups) if number != goes]


def _merged(weights: Sequence[float]) -> dict[float, float]:
    """The weight to type in place of each: the mean of those near each other, in as few digits as are needed."""
    clusters: list[list[float]] = []
    for weight in sorted(weights):
        if clusters and weight <= clusters[-1][0] + NEAR + 1e-6:
            clusters[-1].append(weight)
        else:
            clusters.append([weight])
    return {weight: round(sum(cluster) / len(cluster), 2) for cluster in clusters for weight in cluster}


def dealt(vectors: int, groups: Sequence[Group], fillers: Sequence[bool]) -> list[int]:
    """So many vectors shared out among groups by their tokens, at least one each and at most as many as it has.

    By Webster's method. A token counts the more the further its weight is from 1, for that effect is what words are
    for. Fillers get what is left when all others have a vector of their own.
    """
    words = [sum(not fillers[place] for place in places) for _, places in groups]
    shares = [1] * len(groups)

    def claim(group: int) -> tuple[bool, float]:
        weight, _ = groups[group]
        return shares[group] < words[group], words[group] * (1 + abs(weight - 1)) / (2 * shares[group] + 1)

    for _ in range(vectors - len(groups)):
        unfilled = [number for number, (_, places) in enumerate(groups) if shares[number] < len(places)]
        shares[max(unfilled, key=claim)] += 1
    return shares


def _chosen(places: Sequence[int], number: int, fillers: Sequence[bool]) -> tuple[int, ...]:
    """So many of a group's places: the last, as what an English phrase is about ends it, and fillers only after all
    others."""
    return tuple(sorted(sorted(places, key=lambda place: (fillers[place], -place))[:number]))


def _among(table: Tensor, rows: Tensor) -> list[bool]:
    """Which rows of a table (n, width) are among others (m, width)."""
    return [bool((rows == row).all(dim=1).any()) for row in table]


def slots(words: Sequence[Word]) -> str:
    """What stands for `{}` in a template of `BorrowedModel.encode_vectors`: each word's share of the vectors."""
    names = [f"{{{first}:{last}}}" for first, last in spans([word.tokens for word in words])]
    return phrase(names, [word.weight for word in words])


def spans(tokens: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where in all vectors those of each word begin and end."""
    first = 0
    for number in tokens:
        yield first, first + number
        first += number


def notes(settings: Settings, words: Sequence[Word]) -> list[str]:
    """What became of the wish for one word for each weight."""
    found = []
    if len(words) == 1:
        found.append(f"words={settings.words!r}: all of the text has the weight {words[0].weight:g}, so one word does")
    if words and (tokens := sum(word.tokens for word in words)) < settings.tokens:
        found.append(f"tokens={settings.tokens}: the text has {tokens}, one for each vector, so there are no more")
    return found
