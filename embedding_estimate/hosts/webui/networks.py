"""Extra networks (`<lora:name:weight>`, `<hypernet:name>`) of a job's prompts, active as long as it has the model.

Settings of the WebUI can add a network of each kind to every prompt; these are active then too. They all change the
model and no vectors can do that: teacher and student both run with them, and whoever uses the embedding types them
along.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from embedding_estimate.errors import ModelError

LOADED = (("networks", "loaded_networks"), ("lora", "loaded_loras"))  # where the WebUI's LoRA keeps them, by version


def stripped(text: str) -> str:
    """The prompt as the text engines get it."""
    from modules import extra_networks

    return str(extra_networks.parse_prompt(text)[0])


def mentioned(text: str) -> list[str]:
    """The networks of a prompt, as they are typed."""
    from modules import extra_networks

    found = extra_networks.parse_prompt(text)[1]
    return [f"<{kind}:{':'.join(each.items)}>" for kind, each_of in found.items() for each in each_of]


@contextmanager
def active(texts: Sequence[str]) -> Iterator[list[str]]:
    """Switches the texts' networks on, each once, and those that the settings add; tells the latter as they would be
    typed. All others are off. Off again at the end, which restores the model's weights before the next image.

    Raises `ModelError` for a LoRA or hypernetwork that the WebUI could not load: it would do without, in silence."""
    from modules import extra_networks

    each = dict.fromkeys(network for text in texts for network in mentioned(text))
    plain, wanted = extra_networks.parse_prompts(["".join(each)])
    job = SimpleNamespace(
        all_prompts=plain, prompts=plain, scripts=None, extra_generation_params={}, comment=lambda text: None
    )
    extra_networks.activate(job, wanted)
    try:
        if missing := _missing(each):
            raise ModelError(f"{' '.join(missing)} could not be loaded: mend the name, or drop it")
        yield mentioned(job.all_prompts[0])  # where a setting's network leaves its name for the infotext
    finally:
        extra_networks.deactivate(job, wanted)
        extra_networks.activate(job, {})


def _missing(typed: Iterable[str]) -> list[str]:
    """LoRAs and hypernetworks that the WebUI has not loaded; none of a kind of which it does not tell."""
    loaded = {"lora": _loras(), "hypernet": _hypernetworks()}
    found = []
    for network in typed:
        kind, name = network.strip("<>").split(":")[:2]
        there = loaded.get(kind)
        if there is not None and name not in there:
            found.append(network)
    return found


def _loras() -> set[str] | None:
    """The names that those which are loaded are typed by; None where the WebUI does not tell."""
    for module, attribute in LOADED:
        loaded = getattr(sys.modules.get(module), attribute, None)
        if loaded is not None:
            return {getattr(lora, "mentioned_name", None) or lora.name for lora in loaded}
    return None


def _hypernetworks() -> set[str] | None:
    """Likewise. One is typed by its file's name, and calls itself what it was trained as."""
    from modules import shared

    loaded = getattr(shared, "loaded_hypernetworks", None)
    if loaded is None:
        return None
    files = {Path(hypernetwork.filename).stem for hypernetwork in loaded if getattr(hypernetwork, "filename", None)}
    return files | {hypernetwork.name for hypernetwork in loaded}
