"""The user's own prompts as contexts to train in: the last image's prompt and the saved styles."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from embedding_estimate.errors import PromptError
from embedding_estimate.hosts.webui import comments, txt2img
from embedding_estimate.hosts.webui.reading import readable

PLACE = "{prompt}"  # of the prompt in a style
MOST = 24  # more would make the training slow
STEPS = 150  # so that a schedule in whole steps shows


def contexts(negative: bool) -> list[str]:
    """Those of one side of the guidance, at most `MOST`, none twice: the last image's first.

    Each is one line with `{}` where the style has its place or, without one, at the end. Prompts that change with the
    step, have `AND` or make the WebUI fail are left out, since an embedding stands in a plain one.
    """
    prompts = [*_last(negative), *_styles(negative)]
    found = dict.fromkeys(context for prompt in prompts if (context := _context(prompt)))
    return list(islice((context for context in found if _is_plain(context, negative)), MOST))


def _last(negative: bool) -> Iterator[str]:
    """The prompt of the image that was made last, where the WebUI shows it to its users as well."""
    from modules import paths, shared

    options = shared.cmd_opts
    if options.hide_ui_dir_config or getattr(options, "no_prompt_history", False):  # since 1.9
        return
    try:
        infotext = (Path(paths.data_path) / "params.txt").read_text("utf-8", errors="replace")
    except OSError:  # no image was made yet
        return
    yield str(txt2img.parsed(infotext).get("Negative prompt" if negative else "Prompt") or "")


def _styles(negative: bool) -> Iterator[str]:
    from modules import shared

    for style in list(shared.prompt_styles.styles.values()):
        yield comments.left_out((style.negative_prompt if negative else style.prompt) or "")  # None in headings


def _context(prompt: str) -> str:
    """Empty where the prompt says nothing."""
    line = " ".join(prompt.split()).strip(", ").replace(PLACE, "{}")
    if line in ("", "{}"):
        return ""
    return line if "{}" in line else f"{line}, {{}}"


def _is_plain(prompt: str, negative: bool) -> bool:
    from modules import prompt_parser

    [parts], _, _ = prompt_parser.get_multicond_prompt_list([prompt])
    try:
        with readable(prompt):
            [schedule] = prompt_parser.get_learned_conditioning_prompt_schedules([prompt], STEPS)
    except PromptError:
        return False
    composed = not negative and (len(parts) > 1 or parts[0][1] != 1)
    return not composed and len(schedule) == 1
