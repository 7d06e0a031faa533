"""Forge's text engines, which read the WebUI's settings at each image only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from embedding_estimate.hosts.webui.replacing import replaced

ENGINES = ("text_processing_engine", "text_processing_engine_l", "text_processing_engine_g")


def clip_engines(model: Any) -> list[Any]:
    """The CLIP engines of a model; none of a placeholder or None."""
    return [getattr(model, name) for name in ENGINES if hasattr(model, name)]


@contextmanager
def reading_settings(model: Any) -> Iterator[None]:
    """Within, the engines apply weights and skip layers as the settings say by now.

    In newer versions the emphasis is a property that reads the settings itself.
    """
    from backend.text_processing import emphasis
    from modules import shared

    with ExitStack() as stack:
        for engine in clip_engines(model):
            stack.enter_context(replaced(engine, "clip_skip", int(shared.opts.CLIP_stop_at_last_layers)))
            if not isinstance(getattr(type(engine), "emphasis", None), property):
                current = emphasis.get_current_option(shared.opts.emphasis)()
                stack.enter_context(replaced(engine, "emphasis", current))
        yield
