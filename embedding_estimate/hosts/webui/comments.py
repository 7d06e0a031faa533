"""Comments in prompts (`# ...`), which a later WebUI leaves out of every image."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from embedding_estimate.settings import Settings

SCRIPTS = ("ScriptStripComments", "ScriptComments")  # the WebUI's own and Forge Classic's; they look at the setting too
PROMPTS = ("text", "other_prompt", "initial_prompt", "templates")


def left_out(text: str) -> str:
    """A prompt as the WebUI leaves it; the prompt itself where comments are left in."""
    from modules import scripts

    for registered in scripts.scripts_data:
        if registered.script_class.__name__ in SCRIPTS:
            job = SimpleNamespace(all_prompts=[text], all_negative_prompts=[], main_prompt="", main_negative_prompt="")
            registered.script_class().process(job)
            return str(job.all_prompts[0])
    try:
        from modules.processing_scripts.comments import strip_comments  # Forge has no script, and its styles call this
    except ImportError:
        return text
    return str(strip_comments(text))


def left_out_of(settings: Settings) -> Settings:
    """Settings with prompts as the WebUI leaves them. They need not have been checked."""
    typed = {name: getattr(settings, name) for name in PROMPTS}
    read: dict[str, Any] = {name: left_out(text) for name, text in typed.items() if isinstance(text, str)}
    return replace(settings, **read)
