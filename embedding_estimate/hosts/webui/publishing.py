"""Makes the WebUI use what a job has left under its name: the next prompts, and the name's card."""

from __future__ import annotations

import gc
import json
import sys
import threading
from pathlib import Path
from typing import Any

from PIL.Image import Image

from embedding_estimate import __version__
from embedding_estimate.errors import EstimateError
from embedding_estimate.files.whole_file import write_whole
from embedding_estimate.hosts.webui import prompt_cache
from embedding_estimate.hosts.webui.kind import kind
from embedding_estimate.hosts.webui.turns import turn
from embedding_estimate.jobs.job import Job, Saved
from embedding_estimate.reports.image_grid import in_context
from embedding_estimate.storage import saving

MOMENT = 5.0  # seconds that a job waits for the WebUI's queue with its result
FAMILIES = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}  # as the WebUI's cards name them


def publish(job: Job, app: Any = None) -> None:
    """Makes the name stand for what is in its file now, from the next prompt on.

    A job that was dropped has put back what was there before it, and images may have been made in between. Where the
    WebUI's queue is busy the job is over all the same: what comes later in the queue finds the name. `app` is
    the WebUI's, which has its API.
    """
    if job.saved is not None:
        _describe(job)
    registering = threading.Thread(target=_register, args=(app,), name="embedding-estimate-publish", daemon=True)
    registering.start()
    registering.join(MOMENT)


def _register(app: Any) -> None:
    with turn():
        kind().read_embeddings_anew(app)
        prompt_cache.forget()
    _outdate_cards()


def _outdate_cards() -> None:
    """Has the cards drawn anew when a page is loaded next.

    The WebUI draws them once and then only at *Refresh*. It keeps what it has drawn where nothing but functions of its
    page refer to, so that is looked for among all there is.
    """
    ui = getattr(sys.modules.get("modules.ui_extra_networks"), "ExtraNetworksUi", None)
    if ui is not None:
        for shown in (thing for thing in gc.get_objects() if type(thing) is ui):
            shown.pages_contents = []


def _describe(job: Job) -> None:
    """A picture and a description for the card of each word."""
    assert job.saved is not None
    try:
        for path in job.saved.paths:
            described, pictured = path.with_suffix(".json"), path.with_name(f"{path.stem}.preview.png")
            card = _written(described) | _card(job)  # a user may have added notes
            write_whole(described, json.dumps(card, indent=4, ensure_ascii=False).encode())
            if (picture := _picture(job.saved)) and saving.ours(pictured):
                write_whole(pictured, saving.png(picture))
    except EstimateError as error:
        job.notes.append(f"the card has no picture or description: {error}")


def _picture(saved: Saved) -> Image | None:
    """Of the embedding alone or, where there is none, in a context."""
    for row in ("embedding", in_context("embedding")):
        if made := saved.pictures.get(row):
            return made[0]
    return None


def _written(card: Path) -> dict[str, Any]:
    """What an earlier embedding of that name left on its card."""
    try:
        content = json.loads(card.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _card(job: Job) -> dict[str, Any]:
    """The WebUI's user metadata."""
    assert job.saved is not None
    estimate, figures = job.saved.estimate, job.saved.estimate.fidelity
    family = estimate.embedding.provenance["model"]["family"]
    lines = [f"For the {job.settings.prompt_type.lower()}; {estimate.embedding.tokens} vectors"]
    if estimate.phrase != estimate.embedding.name:
        lines.append(f"To be typed as {estimate.phrase}")
    if figures:
        lines.append(f"Explained {figures.explained:.3f} by protocol {figures.protocol}")
    if not job.settings.private:  # notes may quote the prompt
        lines += [f"Does what this does: {job.settings.text}", *job.notes]
    return {
        "description": "\n".join([*lines, f"Embedding Estimate {__version__}"]),
        "sd version": FAMILIES[family],
        "sd_version_str": f"SdVersion.{FAMILIES[family]}",  # Forge's
    }
