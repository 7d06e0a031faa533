"""Captions of the demo model's world: attributes dropped at random, word order and filler varied.

What a caption leaves out may be anything in the picture, except that a style which is not named is
usually absent. So every word of a caption carries its own weight.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from demo_world import Scene

from embedding_estimate.demo.words import STYLES

FILLERS = ("nothing else", "drawn with care", "a very simple scene", "made for a children's book of shapes")
TAGS = (*STYLES, *FILLERS)  # what stands between commas

Fact = tuple[str, str]  # (attribute, word), e.g. ("colour", "red"), or (style, style)


@dataclass(frozen=True)
class Phrase:
    """A piece of a caption and the facts that are known once it has been read."""

    text: str
    facts: tuple[Fact, ...] = ()


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A random caption of a scene, without regard to what it leaves out."""
    return " ".join(phrase.text for phrase in phrases(scene, rng)).replace(" ,", ",")


def plain_caption(scene: Scene) -> str:
    """Shape, colour and background: "a red circle on a blue background"."""
    article = "an" if scene.colour[0] in "aeiou" else "a"
    return f"{article} {scene.colour} {scene.shape} on a {scene.background} background"


def phrases(scene: Scene, rng: np.random.Generator) -> list[Phrase]:
    """A random caption in pieces: attributes dropped at random, word order and filler varied."""
    styles = [style for style in STYLES if style in scene.styles and rng.random() < 0.88]
    rng.shuffle(styles)
    adjectives = {style for style in styles if rng.random() < 0.6}
    tagged = [style for style in styles if style not in adjectives]

    opening = list(_opening(adjectives - {"striped", "outlined", "dotted"}, rng))
    parts = [list(_object(scene, adjectives & {"striped", "outlined"}, rng))]
    if rng.random() < 0.85:
        parts.append(list(_background(scene, "dotted" in adjectives, rng)))
    elif "dotted" in adjectives:
        tagged.append("dotted")
    if rng.random() < 0.5:
        parts.append(list(_position(scene, rng)))
    parts += [[Phrase(style, ((style, style),))] for style in tagged]
    if rng.random() < 0.15:
        parts.append([Phrase(str(rng.choice(FILLERS)))])
    first = 1 if opening or rng.random() < 0.6 else 0  # "a picture of" must be followed by the object
    parts[first:] = [parts[first + index] for index in rng.permutation(len(parts) - first)]

    comma = Phrase(",")
    with_commas = rng.random() < 0.5
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


def _object(scene: Scene, adjectives: set[str], rng: np.random.Generator) -> Iterator[Phrase]:
    """The object: "a large striped red circle", with words left out at random."""
    if rng.random() < 0.75:
        yield Phrase(str(rng.choice(["a", "a", "a", "one", "the", "a drawn"])))
    if rng.random() < 0.5:
        yield Phrase(scene.size, (("size", scene.size),))
    for style in sorted(adjectives):
        yield Phrase(style, ((style, style),))
    colour = ("colour", scene.colour)
    named = rng.random() < 0.9
    noun = scene.shape if named else str(rng.choice(["shape", "object", "thing"]))
    facts: tuple[Fact, ...] = (("shape", scene.shape),) if named else ()
    if rng.random() < 0.88:
        yield Phrase(f"{scene.colour} {noun}", (colour, *facts))
    else:
        yield Phrase(noun, facts)


def _background(scene: Scene, dotted: bool, rng: np.random.Generator) -> Iterator[Phrase]:
    """The background: "on a blue background", "blue background"."""
    lead = str(rng.choice(["on a", "on a", "on a", "with a", "against a", "in front of a", "and behind it a", ""]))
    if lead:
        yield Phrase(lead)
    if dotted:
        yield Phrase("dotted", (("dotted", "dotted"),))
    yield Phrase(f"{scene.background} background", (("background", scene.background),))


def _position(scene: Scene, rng: np.random.Generator) -> Iterator[Phrase]:
    """The place: "on the left", "left"."""
    lead = {"center": "in the", "left": "on the", "right": "on the", "top": "at the", "bottom": "at the"}
    if rng.random() < 0.85:
        yield Phrase(lead[scene.position])
    yield Phrase(scene.position, (("position", scene.position),))
    if rng.random() < 0.2:
        yield Phrase("of the picture")
