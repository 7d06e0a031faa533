"""Comments in prompts (`# ...`), which a later WebUI leaves out of every image."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from embedding_estimate.settings import Settings

SCRIPT = "ScriptStripComments"  # the WebUI's own; it looks at the setting for them too
PROMPTS = ("text", "other_prompt", "initial_prompt", "templates")


def left_out(text: str) -> str:
    """A prompt as the WebUI's script leaves it; the prompt itself where there is none."""
    from modules import scripts

    for each in scripts.scripts_data:
        if each.script_class.__name__ == SCRIPT:
            job = SimpleNamespace(all_prompts=[text], all_negative_prompts=[], main_prompt="", main_negative_prompt="")
            each.script_class().process(job)
            return str(job.all_prompts[0])
    return text


def left_out_of(settings: Settings) -> Settings:
    """Settings with prompts as the WebUI's script leaves them. They need not have been checked."""
    typed = {name: getattr(settings, name) for name in PROMPTS}
    read: dict[str, Any] = {name: left_out(text) for name, text in typed.items() if isinstance(text, str)}
    return replace(settings, **read)
