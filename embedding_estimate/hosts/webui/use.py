"""A word beside the image where an embedding is used otherwise than it was made for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedding_estimate.embedding import read
from embedding_estimate.errors import EmbeddingError
from embedding_estimate.hosts.webui import comments, networks, support


def comment(p: Any) -> None:
    """For a script's `process_batch`: comments on the images that are about to be made.

    Networks that settings add stand in the prompts by then.
    """
    from modules.sd_hijack import model_hijack

    say = getattr(p, "comment", model_hijack.comments.append)  # a WebUI before 1.6 collects comments there
    prompts = [comments.left_out(prompt) for prompt in dict.fromkeys([*p.all_prompts, *p.all_negative_prompts])]
    for line in warnings(prompts, model_hijack.embedding_db.word_embeddings):
        say(line)


def warnings(prompts: Sequence[str], embeddings: Mapping[str, Any]) -> list[str]:
    """One line for each embedding of ours in the prompts that something is missing for."""
    text = "\n".join(prompts)
    found = []
    for name in _used(text, embeddings):
        if differences := _differences(_provenance(embeddings[name]), text):
            found.append(f"{name} was made {', '.join(differences)}")
    return found


def _used(text: str, names: Iterable[str]) -> list[str]:
    """Those that stand in a text as words, in any case; where one begins another, the longer goes first."""
    found = []
    for name in sorted(names, key=len, reverse=True):
        text, times = re.subn(rf"(?<!\w){re.escape(name)}(?!\w)", " ", text, flags=re.IGNORECASE)
        if times:
            found.append(name)
    return found


def _provenance(embedding: Any) -> Mapping[str, Any]:
    """What a file tells of itself; nothing where another program made it."""
    try:
        return read(Path(embedding.filename)).provenance
    except EmbeddingError:
        return {}


def _differences(told: Mapping[str, Any], text: str) -> list[str]:
    from modules import shared

    found = []
    emphasis, model = support.emphasis(), told.get("model")
    if "clip_skip" in told and isinstance(model, Mapping):
        clip_skip = support.clip_skip(shared.sd_model, str(model.get("family")))
        if told["clip_skip"] != clip_skip:
            found.append(f"for clip skip {told['clip_skip']}, and it is {clip_skip} now")
    if told.get("emphasis", emphasis) != emphasis:
        found.append(f"for the emphasis mode {told['emphasis']}, and it is {emphasis} now")
    settings = told.get("settings")
    source = settings.get("text", "") if isinstance(settings, Mapping) else ""
    needed = [*networks.mentioned(source), *told.get("networks", ())]
    there = [_meant(network) for network in networks.mentioned(text)]
    if missing := [network for network in needed if _meant(network) not in there]:
        found.append(f"with {' '.join(missing)}, which the prompt lacks")
    return found


def _meant(network: str) -> list[str | float]:
    """What a network says when it is typed so; 1, 1.0 and no number are the same."""
    kind, name, *values = network.strip("<>").split(":")
    return [kind, name, *map(_number, values or ["1"])]


def _number(value: str) -> str | float:
    try:
        return float(value)
    except ValueError:  # te=0.5
        return value
