"""The pictures of docs/demo-model.md: the worlds, samples of plain prompts, and emphasis."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from demo_captions import plain_caption
from demo_sampling import DemoModel
from demo_world import Group, Palette, Scene, draw
from PIL import Image, ImageDraw

from embedding_estimate.demo.words import POSITIONS, SHAPES, SIZES, STYLES

TILE = 96  # pixels
LABEL = 14  # pixels
COLUMNS = 8
WEIGHTS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


def save_pictures(model: DemoModel, palette: Palette, folder: Path, seed: int) -> None:
    """Write world.png, samples.png and emphasis.png."""
    folder.mkdir(parents=True, exist_ok=True)
    _grid(*_world(palette, np.random.default_rng(seed)), COLUMNS).save(folder / "world.png")

    prompts, labels = _prompts(palette)
    samples = model.sample([model.told(prompt) for prompt in prompts], seed)
    _grid(samples, labels, COLUMNS).save(folder / "samples.png")

    colours, backgrounds = list(palette.colours), list(palette.backgrounds)
    rows = [
        (f"a {colours[2]} circle on a {backgrounds[6]} background", colours[2]),
        (f"a {colours[0]} square on a {backgrounds[3]} background", f"{backgrounds[3]} background"),
        (f"a blurry picture of a {colours[3]} star on a {backgrounds[4]} background", "blurry"),
        (f"a small {colours[5]} heart on a {backgrounds[0]} background", "small"),
    ]
    told = [model.emphasised(prompt, word, weight) for prompt, word in rows for weight in WEIGHTS]
    same_noise = [picture for one in told for picture in model.sample([one], seed)]
    labels = [f"{word} {weight}" for _, word in rows for weight in WEIGHTS]
    _grid(same_noise, labels, len(WEIGHTS)).save(folder / "emphasis.png")


def save_pair_pictures(model: DemoModel, groups: list[Group], palette: Palette, folder: Path, seed: int) -> None:
    """Write pairs.png: eight groups as they are drawn, as sentences, as tags, and as tags with a style each."""
    folder.mkdir(parents=True, exist_ok=True)
    groups, rng = groups[:COLUMNS], np.random.default_rng(seed)
    sentences = [plain_caption(group) for group in groups]
    tags = [", ".join([*(f"{i.colour} {i.shape}" for i in g.items), f"{g.background} background"]) for g in groups]
    prompts = [*sentences, *tags, *(f"{style}, {text}" for style, text in _matched(STYLES, tags))]
    pictures = [draw(group, palette, rng) for group in groups]
    pictures += model.sample([model.told(prompt) for prompt in prompts], seed)
    labels = [re.sub(", | and | on a ", "\n", prompt) for prompt in (*sentences, *prompts)]
    _grid(pictures, labels, COLUMNS, label_height=4 * LABEL).save(folder / "pairs.png")


def _world(palette: Palette, rng: np.random.Generator) -> tuple[list[np.ndarray], list[str]]:
    """Drawings of every shape, colour, background, size, place and style."""
    colours, backgrounds = list(palette.colours), list(palette.backgrounds)
    labelled = [(Scene(s, c, b), f"{c} {s}, {b}") for s, c, b in _matched(SHAPES, colours, _turned(backgrounds, 4))]
    labelled += [(Scene("star", colours[3], backgrounds[3], size=size), size) for size in SIZES]
    labelled += [(Scene("star", colours[3], backgrounds[3], position=place), place) for place in POSITIONS]
    labelled += [(Scene("heart", colours[0], backgrounds[3], "large", styles=frozenset([s])), s) for s in STYLES]
    return [draw(scene, palette, rng) for scene, _ in labelled], [label for _, label in labelled]


def _prompts(palette: Palette) -> tuple[list[str], list[str]]:
    """Prompts with every shape, colour, background, style, size and place in four rows, and labels."""
    colours, backgrounds = list(palette.colours), list(palette.backgrounds)
    scenes = [
        Scene(shape, colour, background)
        for turn in (0, 3)
        for shape, colour, background in _matched(SHAPES, _turned(colours, turn), _turned(backgrounds, 4 - turn))
    ]
    prompts = [plain_caption(scene) for scene in scenes]
    labels = [f"{scene.colour} {scene.shape}, {scene.background}" for scene in scenes]
    prompts += [f"a {colours[0]} heart on a {backgrounds[3]} background, {style}" for style in STYLES]
    prompts += [f"a {size} {colours[3]} star on a {backgrounds[3]} background" for size in SIZES]
    prompts += [f"a {colours[3]} star on a {backgrounds[3]} background, {place}" for place in POSITIONS]
    return prompts, [*labels, *STYLES, *SIZES, *POSITIONS]


def _turned(words: list[str], turn: int) -> list[str]:
    return words[turn:] + words[:turn]


def _matched(*words: Iterable[str]) -> Iterator[tuple[str, ...]]:
    return zip(*words, strict=True)


def _grid(pictures: list[np.ndarray], labels: list[str], columns: int, label_height: int = LABEL) -> Image.Image:
    """Pictures in rows, each with its label below, in few colours for a small file."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (TILE + 4), rows * (TILE + label_height + 4)), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = index % columns * (TILE + 4) + 2, index // columns * (TILE + label_height + 4) + 2
        sheet.paste(Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.LANCZOS), (x, y))
        pen.text((x, y + TILE + 1), label, fill=(0, 0, 0), font_size=8)
    return sheet.quantize(128)
