"""The world of the demo model: scenes of one object on a plain background, or of two, and their pictures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from embedding_estimate.demo.words import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, STYLES

RGB = tuple[int, int, int]

PICTURE_SIZE = 128  # pixels
SUPERSAMPLING = 2
STYLE_PROBABILITY = 0.18
TWO_OBJECTS = 0.75  # share of the groups
RADIUS = {"small": 17.0, "medium": 25.0, "large": 36.0}  # pixels
OFFSET = {"center": (0, 0), "left": (-28, 0), "right": (28, 0), "top": (0, -28), "bottom": (0, 28)}  # pixels
OPPOSITES = (("left", "right"), ("top", "bottom"))


@dataclass(frozen=True)
class Palette:
    """Colour words and what they look like; with `pairs`, pictures of them show one object or two."""

    colours: Mapping[str, RGB]
    backgrounds: Mapping[str, RGB]
    pairs: bool = False


PALETTES = {
    "primary": Palette(
        colours=dict(
            zip(
                COLOURS,
                [(220, 30, 35), (25, 150, 50), (35, 65, 215), (245, 225, 45), (245, 135, 20), (135, 40, 165),
                 (252, 252, 252), (12, 12, 12)],
                strict=True,
            )
        ),
        backgrounds=dict(
            zip(
                BACKGROUNDS,
                [(245, 245, 245), (20, 20, 20), (130, 130, 130), (60, 95, 225), (50, 165, 75), (205, 45, 50),
                 (240, 220, 75), (245, 150, 190)],
                strict=True,
            )
        ),
    ),
    "earth": Palette(
        colours={
            "crimson": (190, 20, 60), "teal": (0, 125, 125), "navy": (20, 30, 105), "gold": (225, 175, 30),
            "magenta": (230, 40, 200), "brown": (115, 65, 30), "ivory": (255, 252, 228), "lime": (135, 230, 40),
        },
        backgrounds={
            "beige": (225, 205, 165), "silver": (150, 160, 172), "olive": (110, 115, 40), "maroon": (105, 15, 35),
            "turquoise": (65, 210, 200), "lavender": (190, 165, 235), "navy": (35, 45, 115), "coral": (250, 125, 95),
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One object of a picture."""

    shape: str
    colour: str
    size: str = "medium"
    position: str = "center"


@dataclass(frozen=True)
class Scene:
    """What a picture of one object shows."""

    object_scale: ClassVar[float] = 1.0  # of the radii
    shape: str
    colour: str
    background: str
    size: str = "medium"
    position: str = "center"
    styles: frozenset[str] = frozenset()

    @property
    def items(self) -> tuple[Item, ...]:
        return (Item(self.shape, self.colour, self.size, self.position),)


@dataclass(frozen=True)
class Group:
    """What a picture of one object or two shows; two stand side by side or one above the other."""

    object_scale: ClassVar[float] = 0.75  # two large ones have room
    items: tuple[Item, ...]
    background: str
    styles: frozenset[str] = frozenset()


def random_scene(palette: Palette, rng: np.random.Generator) -> Scene | Group:
    """A scene with every attribute uniform, but the object never vanishes into its background."""
    if palette.pairs:
        return _random_group(palette, rng)
    while True:
        colour, background = rng.choice(list(palette.colours)), rng.choice(list(palette.backgrounds))
        if _distance(palette.colours[colour], palette.backgrounds[background]) > 60:
            break
    styles = _random_styles(rng)
    shape, size, position = (str(rng.choice(words)) for words in (SHAPES, SIZES, POSITIONS))
    return Scene(shape, str(colour), str(background), size, position, styles)


def _random_group(palette: Palette, rng: np.random.Generator) -> Group:
    """One object or two, which differ in colour, shape and place and are seen on their background."""
    count = 2 if rng.random() < TWO_OBJECTS else 1
    while True:
        colours = rng.choice(list(palette.colours), count, replace=False).tolist()
        background = str(rng.choice(list(palette.backgrounds)))
        if all(_distance(palette.colours[colour], palette.backgrounds[background]) > 60 for colour in colours):
            break
    shapes = rng.choice(SHAPES, count, replace=False).tolist()
    sizes = rng.choice(SIZES, count).tolist()
    places = list(OPPOSITES[rng.integers(2)]) if count == 2 else [str(rng.choice(POSITIONS))]
    items = tuple(Item(*attributes) for attributes in zip(shapes, colours, sizes, places, strict=True))
    return Group(items, background, _random_styles(rng))


def _random_styles(rng: np.random.Generator) -> frozenset[str]:
    return frozenset(style for style in STYLES if rng.random() < STYLE_PROBABILITY)


def draw(scene: Scene | Group, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    """Draw a scene, with a little jitter of place, size and angle.

    Returns:
        Picture, uint8, (128, 128, 3).
    """
    scale, side = SUPERSAMPLING, PICTURE_SIZE * SUPERSAMPLING
    background = palette.backgrounds[scene.background]
    places = [_place(item, scene.object_scale, rng) for item in scene.items]

    picture = Image.new("RGB", (side, side), background)
    if "dotted" in scene.styles:
        picture.paste(_tone(background), mask=_dots(side, rng))
    for item, (centre, radius, angle) in zip(scene.items, places, strict=True):
        colour = palette.colours[item.colour]
        if "outlined" in scene.styles:
            outline = object_mask(item.shape, centre, radius + 6 * scale, angle, side)
            picture.paste(_outline_colour(colour, background), mask=outline)
        mask = object_mask(item.shape, centre, radius, angle, side)
        picture.paste(colour, mask=mask)
        if "striped" in scene.styles:
            picture.paste(_tone(colour), mask=ImageChops.multiply(mask, _stripes(side, rng)))
    if "framed" in scene.styles:
        edge = ImageDraw.Draw(picture)
        edge.rectangle((0, 0, side - 1, side - 1), outline=_tone(background), width=9 * scale)
    picture = picture.reduce(scale)
    return _finish(picture, scene.styles, rng)


def _place(item: Item, object_scale: float, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """Centre (x, y) and radius of an object in the larger picture's pixels, and its angle in radians."""
    middle = (PICTURE_SIZE / 2 + np.array(OFFSET[item.position])) * SUPERSAMPLING
    centre = middle + SUPERSAMPLING * rng.uniform(-3, 3, 2)
    radius = SUPERSAMPLING * RADIUS[item.size] * object_scale * rng.uniform(0.93, 1.07)
    return centre, radius, rng.uniform(-0.12, 0.12)


def _finish(picture: Image.Image, styles: frozenset[str], rng: np.random.Generator) -> np.ndarray:
    """The styles that change the picture as a whole."""
    if "blurry" in styles:
        picture = picture.filter(ImageFilter.GaussianBlur(5))
    pixels = np.asarray(picture, dtype=np.float32)  # (128, 128, 3)
    if "faded" in styles:
        pixels = 0.4 * pixels + 0.6 * 195
    if "dark" in styles:
        pixels = 0.4 * pixels
    if "noisy" in styles:
        grain = rng.normal(0, 42, (PICTURE_SIZE // 8, PICTURE_SIZE // 8, 1))  # one value per latent pixel
        pixels = pixels + grain.repeat(8, axis=0).repeat(8, axis=1)
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


def object_mask(shape: str, centre: np.ndarray, radius: float, angle: float, side: int) -> Image.Image:
    """The mask of an object at a centre (x, y), in pixels and radians, L, (side, side)."""
    mask = Image.new("L", (side, side))
    pen = ImageDraw.Draw(mask)
    if shape in ("circle", "ring"):
        pen.ellipse((*(centre - radius), *(centre + radius)), fill=255)
        if shape == "ring":
            pen.ellipse((*(centre - 0.52 * radius), *(centre + 0.52 * radius)), fill=0)
        return mask
    cos, sin = math.cos(angle), math.sin(angle)
    corners = radius * _corners(shape) @ np.array([[cos, sin], [-sin, cos]]) + centre
    pen.polygon([tuple(corner) for corner in corners], fill=255)
    return mask


def _corners(shape: str) -> np.ndarray:
    """Corners of a polygon within about the unit circle, y downwards, (n, 2)."""
    if shape == "square":
        return 0.84 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    if shape == "diamond":
        return np.array([[0, -1.15], [0.72, 0], [0, 1.15], [-0.72, 0]])
    if shape == "triangle":
        return np.array([[0, -1.05], [1.05, 0.85], [-1.05, 0.85]])
    if shape == "cross":
        a, b = 0.34, 1.05
        return np.array([[-a, -b], [a, -b], [a, -a], [b, -a], [b, a], [a, a],
                         [a, b], [-a, b], [-a, a], [-b, a], [-b, -a], [-a, -a]])  # fmt: skip
    if shape == "star":
        turn = np.arange(10) * math.pi / 5
        reach = np.where(np.arange(10) % 2 == 0, 1.2, 0.5)
        return np.stack([reach * np.sin(turn), -reach * np.cos(turn)], axis=1)
    turn = np.linspace(0, 2 * math.pi, 40, endpoint=False)  # heart
    y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    return np.stack([16 * np.sin(turn) ** 3, -y - 2], axis=1) / 15


def _dots(side: int, rng: np.random.Generator) -> Image.Image:
    """A lattice of dots, L, (side, side)."""
    dots, pitch, radius = Image.new("L", (side, side)), side / 6, side / 21
    pen = ImageDraw.Draw(dots)
    start = rng.uniform(-pitch, 0, 2)
    for x in np.arange(start[0], side + pitch, pitch):
        for y in np.arange(start[1], side + pitch, pitch):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return dots


def _stripes(side: int, rng: np.random.Generator) -> Image.Image:
    """Horizontal stripes, L, (side, side)."""
    stripes, period = Image.new("L", (side, side)), side / 9
    pen = ImageDraw.Draw(stripes)
    for y in np.arange(rng.uniform(-period, 0), side, period):
        pen.rectangle((0, y, side, y + 0.42 * period), fill=255)
    return stripes


def _tone(colour: RGB) -> RGB:
    """A lighter tone of a dark colour, a darker one of a light colour."""
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    target = 255 if luminance < 130 else 0
    red, green, blue = (round(0.42 * value + 0.58 * target) for value in colour)
    return red, green, blue


def _outline_colour(colour: RGB, background: RGB) -> RGB:
    """Black, white or gray: what stands out from both colours."""
    candidates: list[RGB] = [(0, 0, 0), (255, 255, 255), (140, 140, 140)]
    return max(candidates, key=lambda c: min(_distance(c, colour), _distance(c, background)))


def _distance(a: RGB, b: RGB) -> float:
    """Euclidean distance of two colours, in 8-bit steps."""
    return math.dist(a, b)
