"""Prompts that the WebUI's own parser fails at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from embedding_estimate.errors import PromptError, quoted


@contextmanager
def readable(prompt: str) -> Iterator[None]:
    """Within, the WebUI parses a prompt. Raises `PromptError` where its parser fails, as that of 1.2 does at "[a|]"."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "lark":  # which makes the parser of each WebUI
            raise
        raise PromptError(
            f"the WebUI cannot read {quoted(prompt)}, because no alternative may be empty in it: "
            "write words on both sides of each |"
        ) from error
