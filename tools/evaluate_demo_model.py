"""Measure how well a demo model obeys its prompts, and draw the pictures of docs/demo-model.md.

    python tools/evaluate_demo_model.py embedding_estimate/demo/shapes --pictures docs/images

Colours, backgrounds and shapes are read off the samples by simple rules; the same rules are applied
to drawings of the same scenes, plain and after the autoencoder, so that the errors of the rules and
of the autoencoder can be told from those of the U-Net.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo_captions import plain_caption
from demo_pictures import save_pair_pictures, save_pictures
from demo_sampling import DemoModel
from demo_vae import to_tensor
from demo_world import PALETTES, PICTURE_SIZE, RGB, Group, Palette, Scene, draw, object_mask, random_scene

from embedding_estimate.demo.words import SHAPES

SAMPLES = 64
GUIDANCES = (3.0, 5.0, 7.5)
BORDER = 10  # pixels at the picture's edge that show the background
TIMES = (200, 400, 600, 800)
EMPHASIS = 1.5


@dataclass(frozen=True)
class Emphasis:
    """How emphasis on one word moves the prediction, means over scenes, times and noise.

    Attributes:
        moved: size of the move over the distance of the prompt from the empty prompt.
        along: part of the move that goes further away from the prompt without the word, over the
            distance of the prompt from that prompt; 0.5 would be a linear answer to 1.5.
    """

    moved: float
    along: float


def plain_scenes(palette: Palette, count: int, rng: np.random.Generator) -> list[Scene | Group]:
    """Scenes of a plain prompt: shape, colour and background, of pairs two shapes and colours and their places."""
    if palette.pairs:
        return [_plain_pair(palette, rng) for _ in range(count)]
    scenes = (random_scene(palette, rng) for _ in range(count))
    return [Scene(scene.shape, scene.colour, scene.background) for scene in scenes]


def _plain_pair(palette: Palette, rng: np.random.Generator) -> Group:
    while True:
        group = random_scene(palette, rng)
        if len(group.items) == 2:
            return Group(tuple(replace(item, size="medium") for item in group.items), group.background)


def looks_like(picture: np.ndarray, palette: Palette, part: np.ndarray | None = None) -> tuple[str, str, str]:
    """Read shape, colour and background off a picture, uint8 (128, 128, 3), the object off a part, bool (128, 128)."""
    pixels = picture.astype(np.float32)
    border = np.ones(picture.shape[:2], dtype=bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    background = np.median(pixels[border], axis=0)  # (3,)
    contrast = np.linalg.norm(pixels - background, axis=-1)  # (128, 128)
    if part is not None:
        contrast = np.where(part, contrast, 0)
    mask = contrast > 0.5 * np.quantile(contrast, 0.98)
    core = contrast >= np.quantile(contrast[mask], 0.3)  # away from the object's soft edge
    colour = np.median(pixels[core & mask], axis=0)
    return _nearest_shape(mask), _nearest(colour, palette.colours), _nearest(background, palette.backgrounds)


def _nearest(colour: np.ndarray, words: dict[str, RGB]) -> str:
    return min(words, key=lambda word: float(np.linalg.norm(colour - np.array(words[word]))))


def _nearest_shape(mask: np.ndarray) -> str:
    """The shape whose drawing, put in the same place at the best size, overlaps the mask best."""
    rows, columns = np.nonzero(mask)
    centre = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2
    extent = max(np.ptp(columns), np.ptp(rows)) / 2

    def overlap(shape: str) -> float:
        best = 0.0
        for share in (0.75, 0.85, 0.95, 1.05, 1.2):
            drawn = np.asarray(object_mask(shape, centre, share * extent, 0.0, len(mask))) > 127
            best = max(best, (drawn & mask).sum() / (drawn | mask).sum())
        return best

    return max(SHAPES, key=overlap)


def obedience(pictures: list[np.ndarray], scenes: list[Scene | Group], palette: Palette) -> dict[str, float]:
    """Share of objects with the right shape, colour and background; of two, each is looked for in its own half."""
    right = []
    for picture, scene in zip(pictures, scenes, strict=True):
        for item in scene.items:
            half = _half(item.position) if len(scene.items) > 1 else None
            seen = looks_like(picture, palette, half)
            wanted = (item.shape, item.colour, scene.background)
            right.append([a == b for a, b in zip(seen, wanted, strict=True)])
    return dict(zip(("shape", "colour", "background"), np.mean(right, axis=0).tolist(), strict=True))


def _half(position: str) -> np.ndarray:
    """The half of a picture that an object at the left, right, top or bottom stands in, bool (128, 128)."""
    first = np.arange(PICTURE_SIZE) < PICTURE_SIZE / 2
    line = first if position in ("left", "top") else ~first
    mask = np.broadcast_to(line, (PICTURE_SIZE, PICTURE_SIZE))
    return mask if position in ("left", "right") else mask.T


@torch.no_grad()
def emphasis(model: DemoModel, palette: Palette, scenes: list[Scene | Group], attribute: str, seed: int) -> Emphasis:
    """Measure emphasis 1.5 on one attribute's word (of the first object) in plain prompts, or on a style."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    moved, along = [], []
    empty = model.told("")
    for scene in scenes:
        prompt, without, word = _prompts_about(scene, attribute)
        latents = model.encode(to_tensor(draw(scene, palette, rng))[None])  # (1, 4, 16, 16)
        told = [model.told(prompt), model.emphasised(prompt, word, EMPHASIS), model.told(without), empty]
        for time in TIMES:
            noise = torch.randn(latents.shape, generator=generator)
            base, emphasised, lacking, nothing = model.predict(model.noised(latents, noise, time), time, told)
            moved.append(((emphasised - base).norm() / (base - nothing).norm()).item())
            step = base - lacking
            along.append((((emphasised - base) * step).sum() / (step * step).sum()).item())
    return Emphasis(float(np.mean(moved)), float(np.mean(along)))


def _prompts_about(scene: Scene | Group, attribute: str) -> tuple[str, str, str]:
    """A prompt, the prompt without the attribute's word, and the word."""
    full, item = plain_caption(scene), scene.items[0]
    if attribute == "colour":
        _, _, behind = full.partition(f"{item.colour} ")
        return full, f"a {behind}", item.colour
    if attribute == "background":
        return full, full.removesuffix(f" on a {scene.background} background"), f"{scene.background} background"
    if attribute == "shape":
        return full, full.replace(item.shape, "object"), item.shape
    return f"a {attribute} picture of {full}", f"a picture of {full}", attribute


def main() -> None:
    """Print the measurements as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--palette", choices=sorted(PALETTES), default="primary")
    parser.add_argument("--world", choices=("single", "pairs"), default="single", help="one object, or one or two")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--pictures", type=Path, help="folder for pictures")
    arguments = parser.parse_args()
    palette = replace(PALETTES[arguments.palette], pairs=arguments.world == "pairs")
    rng = np.random.default_rng(arguments.seed)
    model = DemoModel(arguments.model)

    scenes = plain_scenes(palette, SAMPLES, rng)
    told = [model.told(plain_caption(scene)) for scene in scenes]
    drawings = [draw(scene, palette, rng) for scene in scenes]
    sets = {f"samples, guidance {scale}": model.sample(told, arguments.seed, scale) for scale in GUIDANCES}
    sets["decoded drawings"] = [model.reconstructed(drawing) for drawing in drawings]
    sets["drawings"] = drawings
    for title, pictures in sets.items():
        shares = obedience(pictures, scenes, palette)
        print(f"{title}: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items()))
    for attribute in ("colour", "background", "shape", "blurry", "dark"):
        result = emphasis(model, palette, scenes[:16], attribute, arguments.seed)
        print(f"emphasis {EMPHASIS} on {attribute}: moved {result.moved:.2f}, along {result.along:.2f}")
    if arguments.pictures and palette.pairs:
        save_pair_pictures(model, scenes, palette, arguments.pictures, arguments.seed)
    elif arguments.pictures:
        save_pictures(model, palette, arguments.pictures, arguments.seed)


if __name__ == "__main__":
    main()
