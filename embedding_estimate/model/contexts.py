"""Prompts that an embedding stands in: nobody types one alone.

Each is a prompt with `{}` where the embedding stands: at its start, in its middle or at its end, among tags or in a
sentence, on the side of the guidance that it is made for. Those that are bundled are in `contexts.json`. A host may
bring others for a model with another vocabulary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedding_estimate.errors import quoted

SIDES = ("prompt", "negative")  # of the guidance
USES = ("train", "select", "report")
LAYOUT = '{"prompt": {"train": [...], "select": [...], "report": [...]}, "negative": ...}'
BUNDLED = Path(__file__).with_name("contexts.json")
SOME = re.compile(r"\{\d+:\d+\}")  # `{0:2}`, in which hosts read some of the vectors


@dataclass(frozen=True)
class Contexts:
    """Three lists without a context in common. In each one or a few are longer than a chunk, the embedding included."""

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


def read(path: Path) -> dict[str, Contexts]:
    """The contexts in a JSON file by side of the guidance, "prompt" and "negative".

    Raises `ValueError` if the file is no JSON, lacks a list, or has an empty one or a prompt without `{}`.

    >>> sorted(read(BUNDLED))
    ['negative', 'prompt']
    """
    try:
        lists = json.loads(path.read_text("utf-8"))
        contexts = {side: Contexts(**{use: tuple(lists[side][use]) for use in USES}) for side in SIDES}
        every = [vars(contexts[side])[use] for side in SIDES for use in USES]
        all_well = all(every) and all("{}" in context for contexts in every for context in contexts)
    except (ValueError, KeyError, TypeError):
        all_well = False
    if not all_well:
        raise ValueError(f"{path}: {LAYOUT} is needed, lists of prompts with {{}} in each")
    return contexts


PROMPTS, NEGATIVE_PROMPTS = read(BUNDLED).values()  # in the order of `SIDES`
