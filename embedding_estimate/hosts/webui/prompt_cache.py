"""The conditionings that the WebUI keeps from one image to the next (`persistent_cond_cache`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def forget() -> None:
    """Makes the WebUI encode its next prompts anew.

    It knows a prompt by its text alone, and a name in it may stand for other vectors by now. To be called within a
    `turns.turn`: an image under way reads these lists. A WebUI before 1.3 keeps none.
    """
    from modules.processing import StableDiffusionProcessing

    for kind in _with_subclasses(StableDiffusionProcessing):
        for name, cache in vars(kind).items():
            if name.startswith("cached_") and isinstance(cache, list):
                cache[:] = [None] * len(cache)  # in place, for jobs of the WebUI share these lists


def _with_subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)
