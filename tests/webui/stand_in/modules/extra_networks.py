import re
from collections import defaultdict
from typing import Any, NamedTuple

from modules import shared


class ExtraNetworkParams(NamedTuple):
    items: list[str]


active: list[str] = []  # what the model would be changed by


def parse_prompt(prompt: str) -> tuple[str, dict[str, list[ExtraNetworkParams]]]:
    found = defaultdict(list)

    def taken(match: re.Match[str]) -> str:
        found[match[1]].append(ExtraNetworkParams(match[2].split(":")))
        return ""

    return re.sub(r"<(\w+):([^>]+)>", taken, prompt), found


def parse_prompts(prompts: list[str]) -> tuple[list[str], dict[str, list[ExtraNetworkParams]]]:
    parsed = [parse_prompt(prompt) for prompt in prompts]
    return [text for text, _ in parsed], parsed[0][1]


def activate(p: Any, data: dict[str, list[ExtraNetworkParams]]) -> None:
    added = shared.opts.sd_lora
    if added != "None" and added not in [each.items[0] for each in data.get("lora", [])]:
        network = f"lora:{added}:{shared.opts.extra_networks_default_multiplier}"
        p.all_prompts = [f"{prompt}<{network}>" for prompt in p.all_prompts]
        data = {**data, network: [ExtraNetworkParams([])]}
    active[:] = [":".join((kind, *each.items)) for kind, several in data.items() for each in several]


def deactivate(p: Any, data: dict[str, list[ExtraNetworkParams]]) -> None:
    pass
