"""A word beside the image where an embedding is used otherwise than it was made for."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.files.embedding import read
from embedding_estimate.files.names import typed_name
from embedding_estimate.hosts.webui import comments, networks, support
from embedding_estimate.hosts.webui.kind import kind
from embedding_estimate.storage import phrases

READ = 1024  # files whose provenance is remembered
SAME_WEIGHT = 0.005  # apart, at most


def comment(p: Any) -> None:
    """For a script's `process_batch`: comments on the images that are about to be made.

    Networks that settings add stand in the prompts by then. As this runs at each image, it does nothing where the
    loaded model has no embeddings, such as one of another family in Forge.
    """
    from modules import shared

    webui = kind()
    database = webui.embeddings(shared.sd_model)
    if database is None:
        return
    for line in warnings(_prompts(p), database, int(p.steps)):
        webui.say(p, line)


def warnings(prompts: Sequence[str], database: Any, steps: int) -> list[str]:
    """One line for each embedding of ours in the prompts of an image that is used otherwise than it was made for."""
    unfit = getattr(database, "skipped_embeddings", {})  # of another width, and so words like any
    embeddings = {**unfit, **database.word_embeddings}
    text = "\n".join(prompts)
    lines = []
    used = _weights(prompts, embeddings, steps)
    for name, weights in used.items():
        provenance = _provenance(embeddings[name])
        if not provenance:
            continue
        if name in database.word_embeddings:
            differences = [*_other_settings(provenance), *_other_weight(name, provenance, weights)]
            differences += _missing_words(provenance, used) + _missing_networks(provenance, text)
        else:
            differences = ["for another family of models, so the WebUI reads the name as plain words"]
        if differences:
            lines.append(f"{name} was made {', '.join(differences)}")
    return lines


def _prompts(p: Any) -> list[str]:
    """What an image is made from, each once."""
    kinds = ("all_prompts", "all_negative_prompts", "all_hr_prompts", "all_hr_negative_prompts")
    prompts = dict.fromkeys(prompt for kind in kinds for prompt in getattr(p, kind, None) or ())
    return [comments.left_out(prompt) for prompt in prompts]


def _weights(prompts: Sequence[str], names: Iterable[str], steps: int) -> dict[str, list[float]]:
    """Names that stand in prompts as words, in any case, each with the weights that it is typed with.

    Where one begins another, the longer goes first. A WebUI may hold thousands of names, and few are in a prompt.
    """
    whole = "\n".join(prompts).casefold()
    typed_names = {name.casefold(): name for name in names if name.casefold() in whole}
    if not typed_names:
        return {}
    longest_first = map(re.escape, sorted(typed_names, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(longest_first)})(?!\w)")
    weights: dict[str, list[float]] = {}
    for prompt in prompts:
        if not pattern.search(prompt.casefold()):
            continue
        for part, weight in _weighted(networks.stripped(prompt), steps):
            for match in pattern.findall(part.casefold()):
                weights.setdefault(typed_names[match], []).append(weight)
    return weights


def _weighted(prompt: str, steps: int) -> list[tuple[str, float]]:
    """What the WebUI reads in a prompt, at any step of an image: pieces of text with their weights."""
    from modules import prompt_parser

    [schedule] = prompt_parser.get_learned_conditioning_prompt_schedules([prompt], steps)
    texts = dict.fromkeys(str(text) for _, text in schedule)
    if support.emphasis() == "None":  # brackets are words then
        return [(text, 1.0) for text in texts]
    return [(str(part), float(weight)) for text in texts for part, weight in prompt_parser.parse_prompt_attention(text)]


def _provenance(embedding: Any) -> Mapping[str, Any]:
    """What a file tells of itself; nothing where another program made it, or where there is none."""
    path = Path(str(embedding.filename or ""))  # a LoRA brings embeddings that are no files
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError:
        return {}


@functools.lru_cache(READ)
def _read(path: Path, changed: int) -> Mapping[str, Any]:
    """`changed` is the time of the file, so that it is read again once it is another."""
    try:
        return read(path).provenance
    except EmbeddingError:
        return {}


def _other_settings(provenance: Mapping[str, Any]) -> list[str]:
    from modules import shared

    differences = []
    model = provenance.get("model")
    if isinstance(model, Mapping) and model.get("hash"):
        name, shorthash = kind().checkpoint(shared.sd_model)
        if shorthash and model["hash"] != shorthash:
            made_for = f"{model.get('name')} [{model['hash']}]"
            differences.append(f"for the checkpoint {made_for}, and it is {name} [{shorthash}] now")
    if isinstance(model, Mapping) and "clip_skip" in provenance:
        family: Any = model.get("family")
        clip_skip = kind().clip_skip(shared.sd_model, family)
        if provenance["clip_skip"] != clip_skip:
            differences.append(f"for clip skip {provenance['clip_skip']}, and it is {clip_skip} now")
    emphasis = support.emphasis()
    if provenance.get("emphasis", emphasis) != emphasis:
        differences.append(f"for the emphasis mode {provenance['emphasis']}, and it is {emphasis} now")
    return differences


def _other_weight(name: str, provenance: Mapping[str, Any], weights: Iterable[float]) -> list[str]:
    made_for = phrases.recorded_weight(provenance)
    others = [weight for weight in weights if not math.isclose(weight, made_for, rel_tol=0, abs_tol=SAME_WEIGHT)]
    return [f"to be typed as {typed_name(name, made_for)}, and has the weight {others[0]:g} here"] if others else []


def _missing_words(provenance: Mapping[str, Any], used: Iterable[str]) -> list[str]:
    """The words that an embedding is to be typed together with."""
    words = phrases.recorded_words(provenance)
    missing = [word.name for word in words if word.name not in used]
    phrase = phrases.phrase_of(words)
    return [f"to be typed as {phrase}, and the prompt lacks {', '.join(missing)}"] if missing else []


def _missing_networks(provenance: Mapping[str, Any], text: str) -> list[str]:
    settings, added = provenance.get("settings"), provenance.get("networks")
    source = settings.get("text") if isinstance(settings, Mapping) else None
    needed = networks.mentioned(source) if isinstance(source, str) else []
    needed += [network for network in added if isinstance(network, str)] if isinstance(added, list) else []
    there = [_meant(network) for network in networks.mentioned(text)]
    missing = [network for network in needed if _meant(network) not in there]
    return [f"with {' '.join(missing)}, which the prompt lacks"] if missing else []


def _meant(network: str) -> list[str | float]:
    """What a network says when it is typed so; 1, 1.0 and no number are the same."""
    kind, *values = network.strip("<>").split(":")
    name, *numbers = values or [""]
    return [kind, name, *map(_number, numbers or ["1"])]


def _number(value: str) -> str | float:
    try:
        return float(value)
    except ValueError:  # te=0.5
        return value
