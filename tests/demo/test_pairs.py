"""Tests of the world of two objects a picture, and of its captions."""

from dataclasses import replace

import numpy as np
import pytest
from demo_captions import JOINTS, caption, phrases, plain_caption
from demo_text import IGNORED, CaptionCoder
from demo_world import OPPOSITES, PALETTES, Group, Item, draw, random_scene
from evaluate_demo_model import _prompts_about, obedience, plain_scenes
from shaking import shaken
from transformers import CLIPTokenizer

from embedding_estimate.demo import demo_model_path
from embedding_estimate.demo.words import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, STYLES

pytestmark = pytest.mark.tools

ATTRIBUTES = ("shape", "colour", "size", "position")
PAIRS = replace(PALETTES["primary"], pairs=True)
CIRCLE = Item("circle", "red", "large", "left")
RING = Item("ring", "blue", "small", "right")
BOTH = Group((CIRCLE, RING), "green", frozenset(STYLES))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(shaken(seed))


def facts_of(group: Group, first: int) -> set[tuple[str, str]]:
    """Everything that can be said of a group if one of its objects is named first."""
    facts = {("background", group.background)} | {(style, style) for style in group.styles}
    for index, item in enumerate(group.items):
        prefix = "" if index == first else "other "
        facts |= {(prefix + name, getattr(item, name)) for name in ATTRIBUTES}
    return facts


def facts_named(group: Group, generator: np.random.Generator) -> set[tuple[str, str]]:
    return {fact for phrase in phrases(group, generator) for fact in phrase.facts}


def test_groups_use_every_word_and_their_objects_differ() -> None:
    generator = rng()
    groups = [random_scene(PAIRS, generator) for _ in range(400)]
    items = [item for group in groups for item in group.items]
    assert {item.shape for item in items} == set(SHAPES)
    assert {item.colour for item in items} == set(COLOURS)
    assert {item.size for item in items} == set(SIZES)
    assert {item.position for item in items} == set(POSITIONS)
    assert {group.background for group in groups} == set(BACKGROUNDS)
    assert {style for group in groups for style in group.styles} == set(STYLES)
    pairs = [group.items for group in groups if len(group.items) == 2]
    assert 0.65 < len(pairs) / len(groups) < 0.85
    for one, other in pairs:
        assert one.shape != other.shape
        assert one.colour != other.colour
        assert (one.position, other.position) in OPPOSITES


def test_each_object_has_its_own_colour_size_and_place() -> None:
    picture = draw(Group((CIRCLE, replace(RING, shape="square")), "green"), PAIRS, rng())
    assert tuple(picture[64, 36]) == PAIRS.colours["red"]
    assert tuple(picture[64, 92]) == PAIRS.colours["blue"]
    assert tuple(picture[3, 3]) == PAIRS.backgrounds["green"]
    areas = [(picture == PAIRS.colours[colour]).all(-1).sum() for colour in ("red", "blue")]
    assert areas[0] > 3 * areas[1]


@pytest.mark.parametrize("places", OPPOSITES)
def test_two_large_objects_stay_apart(places: tuple[str, str]) -> None:
    items = (Item("circle", "red", "large", places[0]), Item("square", "blue", "large", places[1]))
    red = (draw(Group(items, "white"), PAIRS, rng()) == PAIRS.colours["red"]).all(-1).sum()
    alone = (draw(Group(items[:1], "white"), PAIRS, rng()) == PAIRS.colours["red"]).all(-1).sum()
    assert red == pytest.approx(alone, rel=0.02)


def test_styles_are_the_whole_picture_s() -> None:
    plain, striped = (
        draw(Group((CIRCLE, RING), "green", styles), PAIRS, rng()) for styles in (frozenset(), {"striped"})
    )
    changed = (plain != striped).any(-1)  # (128, 128)
    assert changed[:, :64].any()
    assert changed[:, 64:].any()


def test_captions_tell_the_truth() -> None:
    generator = rng()
    for _ in range(300):
        group = random_scene(PAIRS, generator)
        pieces = phrases(group, generator)
        named = {fact for piece in pieces for fact in piece.facts}
        assert any(named <= facts_of(group, first) for first in range(len(group.items)))
        about = [
            name.startswith("other ") for piece in pieces for name, _ in piece.facts if name.split()[-1] in ATTRIBUTES
        ]
        assert about == sorted(about)  # the second object behind the first
        for piece in pieces:
            assert all(word in piece.text.split() for _, word in piece.facts)


def test_every_attribute_is_named_sometimes_and_dropped_sometimes() -> None:
    generator = rng(1)
    captions = [facts_named(BOTH, generator) for _ in range(800)]
    assert set().union(*captions) == facts_of(BOTH, 0) | facts_of(BOTH, 1)
    for attribute in ("shape", "colour", "size", "position", "other shape", "other size", "other position", "blurry"):
        assert 0.3 < np.mean([attribute in dict(named) for named in captions]) < 0.97
    assert np.mean([("colour", "red") in named for named in captions]) == pytest.approx(0.44, abs=0.06)
    assert np.mean(["other shape" not in dict(n) and "other colour" not in dict(n) for n in captions]) < 0.14


def test_captions_are_sentences_and_tags_in_any_order() -> None:
    generator = rng(2)
    captions = [phrases(BOTH, generator) for _ in range(600)]
    sentences = [any(piece.text in JOINTS for piece in pieces) for pieces in captions]
    assert np.mean(sentences) == pytest.approx(0.46, abs=0.07)
    orders = []
    for pieces, is_sentence in zip(captions, sentences, strict=True):
        named = [name for piece in pieces for name, _ in piece.facts]
        if not is_sentence and {"colour", "background", "other colour"} <= set(named):
            orders.append(sorted(["colour", "background", "other colour"], key=named.index).index("background"))
    assert np.bincount(orders) / len(orders) == pytest.approx([1 / 3] * 3, abs=0.13)


def test_pieces_make_up_the_caption_and_the_second_object_has_classes_of_its_own() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(demo_model_path() / "tokenizer")
    coder = CaptionCoder(tokenizer, PAIRS)
    assert len(coder.class_counts()) == 9 + len(STYLES)
    for seed in range(200):
        group = random_scene(PAIRS, rng(seed))
        pieces = phrases(group, rng(seed))
        tokens, classes, end = coder.encode(list(pieces))
        assert tokens[: end + 1].tolist() == tokenizer(caption(group, rng(seed)))["input_ids"]
        said = {
            name: coder.words[name][classes[end, index] - 1]
            for name, index in coder.groups.items()
            if classes[end, index] > 0
        }
        assert said == {name: word for piece in pieces for name, word in piece.facts}
        assert IGNORED not in classes[end:]


def test_a_plain_caption_names_two_objects_and_their_places() -> None:
    assert plain_caption(Group((CIRCLE, RING), "green")) == (
        "a red circle on the left and a blue ring on the right on a green background"
    )
    assert plain_caption(Group((Item("star", "orange"),), "gray")) == "an orange star on a gray background"


def test_the_evaluation_reads_drawings_of_two_objects_right() -> None:
    generator = rng(3)
    scenes = plain_scenes(PAIRS, 24, generator)
    pictures = [draw(scene, PAIRS, generator) for scene in scenes]
    assert min(obedience(pictures, scenes, PAIRS).values()) > 0.95
    exchanged = [
        replace(
            scene,
            items=tuple(
                replace(item, position=other.position)
                for item, other in zip(scene.items, scene.items[::-1], strict=True)
            ),
        )
        for scene in scenes
    ]
    shares = obedience(pictures, exchanged, PAIRS)
    assert shares["colour"] == 0
    assert shares["background"] > 0.95


@pytest.mark.parametrize(
    ("attribute", "without"),
    [
        ("colour", "a circle on the left and a blue ring on the right on a green background"),
        ("shape", "a red object on the left and a blue ring on the right on a green background"),
        ("background", "a red circle on the left and a blue ring on the right"),
    ],
)
def test_emphasis_is_measured_on_the_first_object(attribute: str, without: str) -> None:
    assert _prompts_about(Group((CIRCLE, RING), "green"), attribute)[1] == without
