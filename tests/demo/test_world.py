"""Tests of the drawn world."""

import itertools
import math

import numpy as np
import pytest
from demo_world import PALETTES, PICTURE_SIZE, Palette, Scene, draw, random_scene
from evaluate_demo_model import obedience, plain_scenes
from shaking import shaken

from embedding_estimate.demo.words import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, STYLES

pytestmark = pytest.mark.tools

PRIMARY = PALETTES["primary"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(shaken(seed))


def at_latent_resolution(picture: np.ndarray) -> np.ndarray:
    """Means and spreads of 8x8 squares, (16, 16, 6)."""
    squares = picture.reshape(16, 8, 16, 8, 3).astype(float)
    return np.concatenate([squares.mean((1, 3)), squares.std((1, 3))], axis=-1)


def test_primary_palette_has_the_words_of_the_package() -> None:
    assert tuple(PRIMARY.colours) == COLOURS
    assert tuple(PRIMARY.backgrounds) == BACKGROUNDS


@pytest.mark.parametrize("palette", PALETTES.values(), ids=PALETTES)
def test_colours_of_a_palette_are_well_apart(palette: Palette) -> None:
    for words in (palette.colours, palette.backgrounds):
        assert len(words) == 8
        assert all(math.dist(a, b) > 60 for a, b in itertools.combinations(words.values(), 2))


def test_a_picture_is_reproducible() -> None:
    scene = random_scene(PRIMARY, rng())
    first, second = draw(scene, PRIMARY, rng(1)), draw(scene, PRIMARY, rng(1))
    assert first.shape == (PICTURE_SIZE, PICTURE_SIZE, 3)
    assert first.dtype == np.uint8
    assert (first == second).all()


@pytest.mark.parametrize("style", STYLES)
def test_every_style_shows_at_latent_resolution(style: str) -> None:
    plain = Scene("circle", "red", "blue", "large")
    styled = Scene("circle", "red", "blue", "large", styles=frozenset([style]))
    difference = at_latent_resolution(draw(styled, PRIMARY, rng())) - at_latent_resolution(draw(plain, PRIMARY, rng()))
    assert np.sqrt((difference**2).mean()) > 5


def test_object_and_background_have_their_colours() -> None:
    picture = draw(Scene("square", "red", "blue"), PRIMARY, rng())
    assert tuple(picture[64, 64]) == PRIMARY.colours["red"]
    assert tuple(picture[3, 3]) == PRIMARY.backgrounds["blue"]


def test_places_and_sizes() -> None:
    def mask(size: str, position: str) -> np.ndarray:
        return draw(Scene("circle", "red", "blue", size, position), PRIMARY, rng())[..., 0] > 150

    areas = [mask(size, "center").sum() for size in SIZES]
    assert areas == sorted(areas)
    middle = {position: np.argwhere(mask("small", position)).mean(0) for position in POSITIONS}  # (y, x)
    assert middle["left"][1] < middle["center"][1] < middle["right"][1]
    assert middle["top"][0] < middle["center"][0] < middle["bottom"][0]


def test_random_scenes_use_every_word_and_never_hide_the_object() -> None:
    generator = rng()
    scenes = [random_scene(PRIMARY, generator) for _ in range(300)]
    assert {scene.shape for scene in scenes} == set(SHAPES)
    assert {scene.colour for scene in scenes} == set(COLOURS)
    assert {style for scene in scenes for style in scene.styles} == set(STYLES)
    assert all(scene.colour != scene.background for scene in scenes)


@pytest.mark.parametrize("palette", PALETTES.values(), ids=PALETTES)
def test_the_evaluation_reads_drawings_right(palette: Palette) -> None:
    generator = rng(3)
    scenes = plain_scenes(palette, 64, generator)
    shares = obedience([draw(scene, palette, generator) for scene in scenes], scenes, palette)
    assert min(shares.values()) > 0.95
