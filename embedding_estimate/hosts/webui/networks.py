"""Extra networks (`<lora:name:weight>`, `<hypernet:name>`) of a job's prompts, active as long as it has the model.

Settings of the WebUI can add a network of each kind to every prompt; these are active then too. They all change the
model and no vectors can do that: teacher and student both run with them, and whoever uses the embedding types them
along.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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

    Raises `ModelError` for a LoRA that the WebUI could not load, which it would do without in silence."""
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
    """LoRAs that the WebUI has not loaded; none where it does not tell."""
    for module, attribute in LOADED:
        loaded = getattr(sys.modules.get(module), attribute, None)
        if loaded is not None:
            there = {getattr(each, "mentioned_name", None) or each.name for each in loaded}
            return [each for each in typed if each.startswith("<lora:") and each.strip("<>").split(":")[1] not in there]
    return []
