"""The prompts that are measured: drawn from a seed over the demo model's words, or read from a file."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedding_estimate.demo.words import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, STYLES

SHORTEST, LONGEST = 3, 38
"""Words and commas. Each is one token for CLIP, but for `outlined`, which is two: 3 to 40 tokens, with room."""
WEIGHTS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)
MOST_WEIGHTED = 3  # words
NEGATIVE_EVERY = 3
FEW_STYLES = 2  # before anything else that a prompt may hold
OTHER_PROMPTS = 2  # positive prompts beside a negative one

WEIGHTABLE = frozenset((*SHAPES, *COLOURS, *BACKGROUNDS, *SIZES, *POSITIONS, *STYLES))
FILLERS = ("a very simple scene", "drawn with care", "nothing else")  # words without meaning to the demo model

Phrase = list[str]  # words; phrases are joined with commas


@dataclass(frozen=True)
class Prompt:
    """One prompt to be turned into an embedding."""

    text: str
    negative: bool = False
    other: tuple[str, ...] = ()  # the other side's texts


def generate(count: int, seed: int) -> list[Prompt]:
    """Prompts with one to three weighted words, from short to long in no order; every third is a negative one.

    They are written as in a WebUI: `(blurry:1.4), a (large:1.3) orange triangle, on a blue background`.
    """
    rng = random.Random(seed)
    ratio = LONGEST / SHORTEST
    lengths = [round(SHORTEST * ratio ** ((index + rng.random()) / count)) for index in range(count)]
    rng.shuffle(lengths)
    prompts = []
    for index, length in enumerate(lengths):
        negative = index % NEGATIVE_EVERY == NEGATIVE_EVERY - 1
        text = _write(_weighted(_phrases(rng, length, negative), rng))
        other = tuple(_write(_scene(rng)) for _ in range(OTHER_PROMPTS)) if negative else ()
        prompts.append(Prompt(text, negative, other))
    return prompts


def read(path: Path) -> list[Prompt]:
    """Prompts of a file, one per line, empty lines apart.

    A line is the prompt itself, with a leading `-` for a negative one; or a JSON object with `text` and, where
    wanted, `negative` (true or false) and `other` (a list of the other side's texts).
    Raises `ValueError` with the number of a line that is neither.
    """
    prompts = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        line = line.strip()
        if not line:
            continue
        try:
            prompt = _parsed(line)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path.name}, line {number}: {error}; give a prompt or a JSON object") from None
        prompts.append(prompt)
    return prompts


def _parsed(line: str) -> Prompt:
    if line.startswith("{"):
        values = json.loads(line)
        if not isinstance(values.get("text"), str):
            raise ValueError("no text")
        return Prompt(**{**values, "other": tuple(values.get("other", ()))})
    return Prompt(line.removeprefix("-").strip(), negative=line.startswith("-"))


def _phrases(rng: random.Random, length: int, negative: bool) -> list[Phrase]:
    """As many phrases as `length` words and commas hold, in any order.

    Chosen first: an object, its surroundings and a few styles; for a negative prompt the styles alone.
    """
    object_, background = _scene(rng)
    styles: list[Phrase] = [[style] for style in rng.sample(STYLES, len(STYLES))]
    few, many = styles[:FEW_STYLES], styles[FEW_STYLES:]
    fillers: list[Phrase] = [filler.split() for filler in FILLERS]
    picture = [object_, *_shuffled([background, _position(rng), *([] if negative else few)], rng)]
    chosen: list[Phrase] = []
    room = length + 1  # the first phrase has no comma
    for phrase in [*(few if negative else []), *picture, *_shuffled([*fillers, *many], rng)]:
        if len(phrase) < room:
            chosen.append(phrase)
            room -= len(phrase) + 1
    if room > 0 and object_ in chosen:
        size = rng.choice(SIZES)
        object_[:1] = [_article(size), size]
    return _shuffled(chosen, rng)


def _shuffled(phrases: Sequence[Phrase], rng: random.Random) -> list[Phrase]:
    return rng.sample(phrases, len(phrases))


def _scene(rng: random.Random) -> list[Phrase]:
    """An object, and a background of another colour."""
    colour = rng.choice(COLOURS)
    background = rng.choice([word for word in BACKGROUNDS if word != colour])
    return [
        [_article(colour), colour, rng.choice(SHAPES)],
        ["on", _article(background), background, "background"],
    ]


def _position(rng: random.Random) -> Phrase:
    position = rng.choice(POSITIONS)
    return [{"center": "in", "top": "at", "bottom": "at"}.get(position, "on"), "the", position]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _weighted(phrases: list[Phrase], rng: random.Random) -> list[Phrase]:
    """With weights on some of the words that mean something."""
    places = [(i, j) for i, phrase in enumerate(phrases) for j, word in enumerate(phrase) if word in WEIGHTABLE]
    chosen = rng.sample(places, min(len(places), rng.randint(1, MOST_WEIGHTED)))
    weighted = [list(phrase) for phrase in phrases]
    for i, j in chosen:
        weighted[i][j] = f"({weighted[i][j]}:{rng.choice(WEIGHTS)})"
    return weighted


def _write(phrases: Sequence[Phrase]) -> str:
    return ", ".join(" ".join(phrase) for phrase in phrases)
