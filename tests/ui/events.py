"""What happens on a page, read alike from every gradio that the tab is built with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr


@dataclass(frozen=True)
class Event:
    function: Any  # gradio's own: with `fn`, `name`, `outputs`
    targets: list[tuple[int, str]]  # (the component's id, what happens to it)
    queued: bool


def events(blocks: gr.Blocks) -> Iterator[Event]:
    if isinstance(blocks.fns, dict):
        yield from (Event(each, list(each.targets), each.queue) for each in blocks.fns.values())
        return
    for function, dependency in zip(blocks.fns, blocks.dependencies, strict=True):  # before gradio 4
        targets = [(target, dependency["trigger"]) for target in dependency["targets"]]
        yield Event(function, targets, dependency["queue"] is not False)


def clicked(blocks: gr.Blocks, name: str) -> Any:
    """The function of the button with that id."""
    (button,) = (each for each in blocks.blocks.values() if each.elem_id == f"embedding_estimate_{name}")
    (function,) = (event.function for event in events(blocks) if (button._id, "click") in event.targets)
    return function
