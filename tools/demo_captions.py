"""Captions of the demo model's world: attributes dropped at random, word order and filler varied.

What a caption leaves out may be anything in the picture, except that a style which is not named is
usually absent. So every word of a caption carries its own weight. A second object is named nearly always.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from demo_world import Group, Item, Scene

from embedding_estimate.demo.words import STYLES

FILLERS = ("nothing else", "drawn with care", "a very simple scene", "made for a children's book of shapes")
SECOND_LEFT_OUT = 0.08  # share of the captions of two objects that name one
JOINTS = ("and", "and", "next to", "beside", "with")  # between two objects of a sentence
TAGS = (*STYLES, *FILLERS)  # what stands between commas

PLACED = {"center": "in the", "left": "on the", "right": "on the", "top": "at the", "bottom": "at the"}

Fact = tuple[str, str]  # (attribute, word), e.g. ("colour", "red"), or (style, style)


@dataclass(frozen=True)
class Phrase:
    """A piece of a caption and the facts that are known once it has been read."""

    text: str
    facts: tuple[Fact, ...] = ()


def caption(scene: Scene | Group, rng: np.random.Generator) -> str:
    """A random caption of a scene, without regard to what it leaves out."""
    return " ".join(phrase.text for phrase in phrases(scene, rng)).replace(" ,", ",")


def plain_caption(scene: Scene | Group) -> str:
    """Shape, colour and background: "a red circle on a blue background"; of two objects their places too."""
    objects = [f"{'an' if item.colour[0] in 'aeiou' else 'a'} {item.colour} {item.shape}" for item in scene.items]
    if len(objects) > 1:
        objects = [f"{text} {PLACED[i.position]} {i.position}" for text, i in zip(objects, scene.items, strict=True)]
    return f"{' and '.join(objects)} on a {scene.background} background"


def phrases(scene: Scene | Group, rng: np.random.Generator) -> list[Phrase]:
    """A random caption in pieces: attributes dropped at random, word order and filler varied."""
    if isinstance(scene, Group):
        return _group_phrases(scene, rng)
    adjectives, tagged = _named_styles(scene, rng)
    opening = list(_opening(adjectives - {"striped", "outlined", "dotted"}, rng))
    parts = [list(_object(scene.items[0], adjectives & {"striped", "outlined"}, rng))]
    if rng.random() < 0.85:
        parts.append(list(_background(scene, "dotted" in adjectives, rng)))
    elif "dotted" in adjectives:
        tagged.append("dotted")
    if rng.random() < 0.5:
        parts.append(list(_position(scene.items[0], rng)))
    parts += _tags(tagged, rng)
    first = 1 if opening or rng.random() < 0.6 else 0  # "a picture of" must be followed by the object
    parts[first:] = [parts[first + index] for index in rng.permutation(len(parts) - first)]
    return _joined(opening, parts, with_commas=rng.random() < 0.5)


def _group_phrases(scene: Group, rng: np.random.Generator) -> list[Phrase]:
    """A caption of a group: a sentence, or tags in any order."""
    as_tags = rng.random() < 0.5
    adjectives, tagged = _named_styles(scene, rng)
    of_picture = sorted(adjectives - {"striped", "outlined", "dotted"})
    opening = [] if as_tags else list(_opening(set(of_picture), rng))
    parts = _objects(scene, adjectives & {"striped", "outlined"}, as_tags, rng)
    if len(parts) == 2 and not as_tags:
        parts = [[*parts[0], Phrase(str(rng.choice(JOINTS))), *parts[1]]]
    others = []
    if rng.random() < 0.85:
        background = list(_background(scene, "dotted" in adjectives, rng))
        others.append([phrase for phrase in background if phrase.facts] if as_tags else background)
    elif "dotted" in adjectives:
        tagged.append("dotted")
    others += _tags([*tagged, *of_picture] if as_tags else tagged, rng)
    for part in others:  # the second object stays behind the first, for the order of the two is random already
        parts.insert(int(rng.integers(1 if opening else 0, len(parts) + 1)), part)
    return _joined(opening, parts, with_commas=as_tags or rng.random() < 0.5)


def _objects(scene: Group, adjectives: set[str], as_tags: bool, rng: np.random.Generator) -> list[list[Phrase]]:
    """The objects in any order, each with its place behind it, the second left out now and then.

    The facts of the object that is named second are "other shape", "other colour" and so on.
    """
    parts: list[list[Phrase]] = []
    for index in rng.permutation(len(scene.items)):
        item = scene.items[index]
        part = list(_object(item, set() if parts else adjectives, rng, articles=0.25 if as_tags else 0.9))
        if rng.random() < 0.45:
            part += _position(item, rng)
        parts.append([_of_the_other(phrase) for phrase in part] if parts else part)
    return parts[:1] if rng.random() < SECOND_LEFT_OUT else parts


def _of_the_other(phrase: Phrase) -> Phrase:
    return Phrase(phrase.text, tuple((f"other {attribute}", word) for attribute, word in phrase.facts))


def _named_styles(scene: Scene | Group, rng: np.random.Generator) -> tuple[set[str], list[str]]:
    """The styles that are named, as adjectives and between commas."""
    styles = [style for style in STYLES if style in scene.styles and rng.random() < 0.88]
    rng.shuffle(styles)
    adjectives = {style for style in styles if rng.random() < 0.6}
    return adjectives, [style for style in styles if style not in adjectives]


def _tags(styles: list[str], rng: np.random.Generator) -> list[list[Phrase]]:
    """Styles, and at times something that means nothing."""
    tags = [[Phrase(style, ((style, style),))] for style in styles]
    if rng.random() < 0.15:
        tags.append([Phrase(str(rng.choice(FILLERS)))])
    return tags


def _joined(opening: list[Phrase], parts: list[list[Phrase]], with_commas: bool) -> list[Phrase]:
    """The pieces of a caption in a row, with commas at least around styles and fillers."""
    comma = Phrase(",")
    result = opening
    for index, part in enumerate(parts):
        if index and (with_commas or part[0].text in TAGS or parts[index - 1][0].text in TAGS):
            result.append(comma)
        result += part
    return [_with_article(phrase, following) for phrase, following in zip(result, [*result[1:], comma], strict=True)]


def _with_article(phrase: Phrase, following: Phrase) -> Phrase:
    """Write "an" before a vowel."""
    if phrase.text.split()[-1] == "a" and following.text[0] in "aeiou":
        return Phrase(phrase.text + "n", phrase.facts)
    return phrase


def _opening(adjectives: set[str], rng: np.random.Generator) -> Iterator[Phrase]:
    """Nothing, or "a blurry picture of", and the like."""
    if not adjectives and rng.random() < 0.5:
        return
    yield Phrase(str(rng.choice(["a", "a", "the", "one simple", "this is a"])))
    for style in sorted(adjectives):
        yield Phrase(style, ((style, style),))
    yield Phrase(
        str(rng.choice(["picture of", "drawing of", "image of", "photo of", "painting of", "picture which shows"]))
    )


def _object(item: Item, adjectives: set[str], rng: np.random.Generator, articles: float = 0.75) -> Iterator[Phrase]:
    """The object: "a large striped red circle", with words left out at random."""
    if rng.random() < articles:
        yield Phrase(str(rng.choice(["a", "a", "a", "one", "the", "a drawn"])))
    if rng.random() < 0.5:
        yield Phrase(item.size, (("size", item.size),))
    for style in sorted(adjectives):
        yield Phrase(style, ((style, style),))
    colour = ("colour", item.colour)
    named = rng.random() < 0.9
    noun = item.shape if named else str(rng.choice(["shape", "object", "thing"]))
    facts: tuple[Fact, ...] = (("shape", item.shape),) if named else ()
    if rng.random() < 0.88:
        yield Phrase(f"{item.colour} {noun}", (colour, *facts))
    else:
        yield Phrase(noun, facts)


def _background(scene: Scene | Group, dotted: bool, rng: np.random.Generator) -> Iterator[Phrase]:
    """The background: "on a blue background", "blue background"."""
    lead = str(rng.choice(["on a", "on a", "on a", "with a", "against a", "in front of a", "and behind it a", ""]))
    if lead:
        yield Phrase(lead)
    if dotted:
        yield Phrase("dotted", (("dotted", "dotted"),))
    yield Phrase(f"{scene.background} background", (("background", scene.background),))


def _position(item: Item, rng: np.random.Generator) -> Iterator[Phrase]:
    """The place: "on the left", "left"."""
    if rng.random() < 0.85:
        yield Phrase(PLACED[item.position])
    yield Phrase(item.position, (("position", item.position),))
    if rng.random() < 0.2:
        yield Phrase("of the picture")
