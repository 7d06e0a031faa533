"""Tests of the captions and of the classes they are coded as."""

import numpy as np
import pytest
from demo_captions import Phrase, caption, phrases
from demo_text import IGNORED, LENGTH, CaptionCoder
from demo_world import PALETTES, Scene, random_scene
from shaking import shaken
from transformers import CLIPTokenizer

from embedding_estimate.demo import demo_model_path
from embedding_estimate.demo.words import COLOURS, POSITIONS, SHAPES, SIZES, STYLES

pytestmark = pytest.mark.tools

PRIMARY = PALETTES["primary"]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(demo_model_path() / "tokenizer")


def facts_of(scene: Scene) -> set[tuple[str, str]]:
    named = {(name, getattr(scene, name)) for name in ("shape", "colour", "background", "size", "position")}
    return named | {(style, style) for style in scene.styles}


def test_captions_tell_the_truth() -> None:
    generator = np.random.default_rng(shaken(0))
    for _ in range(300):
        scene = random_scene(PRIMARY, generator)
        pieces = phrases(scene, generator)
        assert {fact for piece in pieces for fact in piece.facts} <= facts_of(scene)
        for piece in pieces:
            assert all(word in piece.text.split() for _, word in piece.facts)


def test_captions_name_no_word_of_the_world_by_accident() -> None:
    generator = np.random.default_rng(shaken(1))
    for _ in range(300):
        scene = random_scene(PRIMARY, generator)
        said = set(caption(scene, generator).replace(",", "").split())
        allowed = {word for _, word in facts_of(scene)}
        assert said & {*SHAPES, *COLOURS, *SIZES, *POSITIONS, *STYLES} <= allowed


def test_every_attribute_is_named_sometimes_and_dropped_sometimes() -> None:
    generator = np.random.default_rng(shaken(2))
    scene = Scene("heart", "red", "blue", "large", "left", frozenset(STYLES))
    captions = [[fact for piece in phrases(scene, generator) for fact in piece.facts] for _ in range(400)]
    for fact in facts_of(scene):
        share = np.mean([fact in named for named in captions])
        assert 0.4 < share < 0.97


def test_a_style_which_is_not_named_is_usually_absent() -> None:
    generator = np.random.default_rng(shaken(3))
    silent = present = 0
    for _ in range(1500):
        scene = random_scene(PRIMARY, generator)
        named = {word for piece in phrases(scene, generator) for _, word in piece.facts}
        silent += len(set(STYLES) - named)
        present += len(scene.styles - named)
    assert present / silent < 0.05


def test_pieces_make_up_the_caption(tokenizer: CLIPTokenizer) -> None:
    coder = CaptionCoder(tokenizer, PRIMARY)
    for seed in range(400):
        scene = random_scene(PRIMARY, np.random.default_rng(shaken(seed)))
        pieces = phrases(scene, np.random.default_rng(shaken(seed)))
        whole = tokenizer(caption(scene, np.random.default_rng(shaken(seed))))["input_ids"]
        tokens, _, end = coder.encode(list(pieces))
        assert tokens[: end + 1].tolist() == whole


def test_lengths_vary() -> None:
    generator = np.random.default_rng(shaken(4))
    scenes = (random_scene(PRIMARY, generator) for _ in range(5000))
    words = [len(caption(scene, generator).split()) for scene in scenes]
    assert min(words) <= 3  # one in 150
    assert max(words) >= 25  # one in 250


def test_classes_are_known_from_a_phrase_s_last_token_on(tokenizer: CLIPTokenizer) -> None:
    coder = CaptionCoder(tokenizer, PRIMARY)
    pieces = [Phrase("a"), Phrase("red circle", (("colour", "red"), ("shape", "circle"))), [1000]]
    tokens, classes, end = coder.encode(pieces)
    assert len(tokens) == len(classes) == LENGTH
    assert end == 5
    assert classes[:6, coder.groups["colour"]].tolist() == [0, 0, IGNORED, 1, 1, 1]
    assert (classes[3:, coder.groups["shape"]] == 1).all()
    assert (classes[:, coder.groups["background"]] == 0).all()
