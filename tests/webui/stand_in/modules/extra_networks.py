import re
from collections import defaultdict
from typing import Any, NamedTuple


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
    active[:] = [":".join((kind, *each.items)) for kind, several in data.items() for each in several]


def deactivate(p: Any, data: dict[str, list[ExtraNetworkParams]]) -> None:
    pass
