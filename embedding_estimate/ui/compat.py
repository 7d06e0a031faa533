"""Every difference between gradio 3.29 (WebUI 1.2.1), 3.41 (1.10.1, reForge), 4.40 (Forge) and 6 (standalone)."""

from __future__ import annotations

from typing import Any

import gradio as gr

VERSION = tuple(int(number) for number in gr.__version__.split(".")[:2])

QUIET: dict[str, Any] = {  # for events that come by themselves: at once, past the queue, without an overlay
    "queue": False,
    "show_progress": False if VERSION < (3, 41) else "hidden",
}
if VERSION >= (6, 0):  # handlers are the page's own and no part of an API
    QUIET["api_visibility"] = "private"
elif VERSION >= (3, 41):  # an earlier one shows none that has no name
    QUIET["api_name"] = False
# and of which the last one counts, though one before it is not answered yet
LATEST = QUIET if VERSION < (4, 0) else QUIET | {"trigger_mode": "always_last"}
