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
from typing import TYPE_CHECKING

from embedding_estimate.errors import SettingsError
from embedding_estimate.files.names import LETTERS, phrase
from embedding_estimate.settings import FEW_WORDS, ONE_WORD, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from embedding_estimate.model.host import BorrowedModel

TRIED = (1, 2, 3, 4, 6, 8, 12, 16)  # numbers of words, where as few as are needed are asked for
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


Plan = tuple[Word, ...]


def plans(settings: Settings, model: BorrowedModel) -> list[Plan]:
    """The words that may be typed for the text: none where the settings ask for one word, one plan for a word for each
    stretch of one weight, and several, few words first, for as few as are needed.

    `settings.tokens` vectors are dealt out by the tokens of each word, 0 or too many being as many as there are tokens.
    Where they are fewer than the stretches, some of one weight share a word. Raises `SettingsError` where they are
    fewer than the weights and each is to have a word.
    """
    if settings.words == ONE_WORD:
        return []
    table = next(iter(model.token_vectors(settings.text).values()))  # (n, width)
    weights = model.token_weights(settings.text)
    if not weights:
        return []
    most = min(len(weights), model.info.chunk_tokens)
    tokens = min(settings.tokens or most, most)
    separators, fillers = (
        _among(table, next(iter(model.token_vectors(text).values()))) for text in (SEPARATORS, FILLERS)
    )
    room = min(tokens, len(LETTERS))
    groups = grouped(weights, separators, room)
    # with a vector for each token, what stands there can be typed as it is
    own = grouped(weights, [False] * len(weights), room) if tokens == len(weights) else groups
    if settings.words == FEW_WORDS:
        fewer = [grouping for grouping in _fewer_and_fewer(groups, room) if len(grouping) < len(own)]
        groupings = [*reversed(fewer), *([own] if len(own) <= room else [])]
    else:
        _check_number(settings, len(own), tokens, min(most, len(LETTERS)))
        groupings = [own]
    return [
        tuple(
            Word(round(weight, 2), _chosen(places, share, fillers))
            for (weight, places), share in zip(one, dealt(tokens, one, fillers), strict=True)
        )
        for one in groupings
    ]


def _check_number(settings: Settings, words: int, tokens: int, most: int) -> None:
    """Raises `SettingsError` where so many words cannot be."""
    if words > most:
        raise SettingsError([f"words={settings.words!r}: the text has {words} weights, too many; choose 'One'"])
    if words > tokens:
        raise SettingsError(
            [
                f"tokens={tokens}: the text has {words} weights, each a word of its own; take {words} or "
                "more, or choose words='One'"
            ]
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


def _fewer_and_fewer(groups: Sequence[Group], room: int) -> list[list[Group]]:
    """Groups for as many words as there is room for, and for fewer and fewer down to one, of the numbers `TRIED`.

    One word of several weights is typed with none.
    """
    chain = [list(groups)]
    while len(chain[-1]) > 1:
        chain.append(_nearest_merged(chain[-1]))
    if len(chain) > 1:
        [(_, places)] = chain[-1]
        chain[-1] = [(1.0, tuple(sorted(places)))]
    chain = [step for step in chain if len(step) <= room]
    return [step for step in chain if len(step) in TRIED or step is chain[0]]


def _nearest_merged(groups: Sequence[Group]) -> list[Group]:
    """The same with one group fewer: of two neighbours one is made, typed with the mean of their tokens' weights.

    They are those for which the squared errors of all tokens' weights grow least (Ward's method).
    """

    def growth(first: int) -> float:
        (one, its), (other, their) = groups[first : first + 2]
        return len(its) * len(their) / (len(its) + len(their)) * (one - other) ** 2

    first = min(range(len(groups) - 1), key=growth)
    (one, its), (other, their) = groups[first : first + 2]
    mean = (len(its) * one + len(their) * other) / (len(its) + len(their))
    return [*groups[:first], (mean, (*its, *their)), *groups[first + 2 :]]


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


def notes(settings: Settings, possible: Sequence[Plan]) -> list[str]:
    """What became of the wish for several words, by the plans for them."""
    if not possible:
        return []
    lines = []
    if len(possible) == len(possible[0]) == 1:
        weight = possible[0][0].weight
        lines.append(f"words={settings.words!r}: the whole text has the weight {weight:g}, so one word is enough")
    if (tokens := sum(word.tokens for word in possible[0])) < settings.tokens:
        lines.append(f"tokens={settings.tokens}: the text has only {tokens} tokens, so there are no more vectors")
    return lines
