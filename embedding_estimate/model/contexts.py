"""Prompts that an embedding stands in: nobody types one alone.

Each is a prompt with `{}` where the embedding stands: at its start, in its middle or at its end, among tags or in a
sentence, on the side of the guidance that it is made for. A host may bring others for a model with another vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embedding_estimate.errors import quoted

SOME = re.compile(r"\{\d+:\d+\}")  # `{0:2}`, in which hosts read some of the vectors


@dataclass(frozen=True)
class Contexts:
    """Three lists without a context in common. In each one is longer than a chunk, the embedding included."""

    train: Sequence[str]
    select: Sequence[str]  # to choose the best vectors by
    report: Sequence[str]  # to measure in


def problems(contexts: Iterable[str]) -> list[str]:
    """What is wrong with prompts that an embedding is to stand in, one line each."""
    lines = []
    for context in contexts:
        if "{}" not in context:
            lines.append(f"{quoted(context)} has no {{}}: write {{}} where the embedding stands")
        elif some := SOME.search(context):
            lines.append(f"{quoted(context)} has {some[0]}, which stands for some of the vectors: leave it out")
    return lines


PROMPTS = Contexts(
    train=(
        "a portrait of a young woman, {}",
        "{}, a castle on a hill, at sunset",
        "masterpiece, best quality, {}",
        "an oil painting of a harbour, {}, soft light",
        "a cat sleeping on a sofa, {}, indoors",
        "{}, city street at night, neon lights",
        "1girl, solo, {}, looking at viewer, outdoors",
        "a photo of an old man with a beard, {}",
        "{}, forest, fog, (cinematic lighting:1.2)",
        "a red sports car parked by the sea, {}",
        "{}, sketch, ink, black and white",
        "a bowl of fruit on a wooden table, a glass vase with white tulips, a silver knife, a loaf of bread, a "
        "candle, grapes, a linen cloth, an open window with a view of a garden, morning sun, dust in the air, a "
        "sleeping dog under the table, an old clock on the wall, copper pots, a basket of eggs, herbs hanging from "
        "the ceiling, deep shadows, {}, studio light",
        "(detailed background:1.2), {}, 1boy, armor",
        "{}, watercolor, mountains, lake",
        "an astronaut on the moon, {}, highly detailed, 8k",
    ),
    select=(
        "a fisherman in a boat, {}, early morning",
        "{}, a library full of books, warm light",
        "(best quality:1.1), {}, 1girl, red dress, dancing",
        "a steam train crossing a bridge, autumn, {}",
        "{}, pencil drawing of a bird",
        "a market in a desert town, crowds, dust, striped awnings, camels, spice sellers, brass lamps, carpets, {}, "
        "a minaret against an orange sky, children running, a street musician, baskets of dates, blue doors, palm "
        "trees, long shadows, birds on a wire, a well in the middle of the square, a merchant counting coins, "
        "distant hills",
        "{}, macro photo, dew on a leaf, green",
    ),
    report=(
        "a portrait of a sailor, {}",
        "{}, a bridge in the rain",
        "(masterpiece:1.2), {}, 2girls, holding hands, school uniform",
        "a photo of a bakery, {}, early light, 35mm",
        "a dragon above a burning village, {}",
        "{}, minimalist poster, flat colors",
        "a glass of water on a table, {}, (sharp focus:1.1)",
        "an old woman reading a letter, {}, candlelight",
        "{}, desert, lone tree, wide angle",
        "futuristic robot, {}, chrome, studio background",
        "close-up of a horse, {}, winter",
        "a very detailed landscape with mountains, a river, a small village with red roofs, a stone bridge, "
        "people in the market, carts, horses, dogs, birds in the sky, white clouds, a castle on the hill, "
        "green fields, old trees, flowers in the foreground, a blue lake, boats, fishermen, children playing, "
        "smoke from the chimneys, warm evening light, long shadows, {}, in the style of an old master",
    ),
)
NEGATIVE_PROMPTS = Contexts(
    train=(
        "{}, blurry, low quality",
        "worst quality, {}, jpeg artifacts",
        "lowres, bad anatomy, {}, extra fingers",
        "text, watermark, {}",
        "{}, cropped, out of frame",
        "ugly, {}, deformed, mutated hands",
        "(worst quality:1.4), (low quality:1.4), {}",
        "{}, monochrome, signature",
        "disfigured, {}, poorly drawn face, missing limbs",
        "{}, grainy, overexposed",
        "cartoon, 3d render, {}, painting",
        "a dark room, {}, shadows",
        "long neck, {}, (bad hands:1.2), duplicate",
        "{}, oversaturated, plastic skin, makeup",
        "crowd, clutter, busy background, distracting objects, power lines, lens flare, motion blur, chromatic "
        "aberration, washed out colors, harsh flash, red eyes, double chin, bad teeth, crossed arms, floating "
        "limbs, disconnected limbs, twisted fingers, uneven eyes, blurry face, stiff pose, flat lighting, tilted "
        "horizon, cut off head, bad crop, {}, stock photo, collage",
    ),
    select=(
        "{}, noise, dull colors",
        "bad proportions, cloned face, {}",
        "logo, frame, border, fused limbs, too many toes, {}, misshapen ears, broken wrist, unnatural skin, wax "
        "figure, doll, mannequin, empty eyes, moire, ghosting, banding, color cast, smudged lines, scribbles, "
        "handwriting, stamp, barcode, price tag, browser window, low effort, bad photoshop, amateur, out of focus, "
        "double exposure",
        "(bad quality:1.3), {}, fused fingers",
        "{}, unfinished sketch",
        "old, {}, wrinkles, (asymmetric eyes:1.1)",
        "low contrast, {}, underexposed, artifacts",
    ),
    report=(
        "{}, watermark",
        "lowres, {}, bad hands",
        "blurry background, {}",
        "(low quality:1.2), {}, worst detail, pixelated",
        "{}, extra limbs, missing fingers, bad feet",
        "sepia, {}, faded, dusty",
        "deformed iris, {}, cross-eyed",
        "text, {}, speech bubble, caption",
        "harsh shadows, {}, flash",
        "{}, (jpeg:1.1), compression, banding",
        "3d, cgi, render, {}",
        "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, "
        "worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, username, blurry, "
        "bad feet, mutation, deformed, ugly, duplicate, morbid, mutilated, out of frame, extra limbs, poorly "
        "drawn face, {}, long neck, cloned face, gross proportions",
    ),
)
