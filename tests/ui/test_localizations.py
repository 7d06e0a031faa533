"""Every text that is always the same has a translation, and no translation is left over."""

import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from toy import ToyHost
from ui.test_status import point, unmeasured

pytest.importorskip("gradio", reason="the tab needs the package's 'app' extra")

import gradio as gr
from ui.test_tab import Place

from embedding_estimate.embedding import Embedding
from embedding_estimate.host import MODES
from embedding_estimate.hosts.webui import options
from embedding_estimate.jobs import Curve, Job
from embedding_estimate.previews import Preview
from embedding_estimate.progress import Progress
from embedding_estimate.settings import PARAMETERS, Settings
from embedding_estimate.ui import PREFIX, status, tab
from embedding_estimate.wording import PHASES

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # see conftest.py

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "localizations").glob("*.json"))
CHOICES = {choice for parameter in PARAMETERS for choice in parameter.choices}  # some are words, most are names
SCRIPT = (ROOT / "javascript" / "embedding_estimate.js").read_text("utf-8")


COUNTER: Any = SimpleNamespace(token_count=int)  # a place where a prompt tells its number


class Texts(HTMLParser):
    """The pieces of text of a page, each as the WebUI would translate it."""

    def __init__(self, html: str):
        super().__init__()
        self.found: set[str] = set()
        self.feed(html)

    def handle_data(self, data: str) -> None:
        if sum(map(str.isalpha, data)) > 1:
            self.found.add(data.strip())


def of_the_form(place: Place) -> set[str]:
    with gr.Blocks(analytics_enabled=False) as blocks:
        tab.build(place)
    shown = [block for block in blocks.blocks.values() if f"{PREFIX}hidden" not in (block.elem_classes or ())]
    ours = [block for block in shown if str(block.elem_id).startswith(PREFIX) and not isinstance(block, gr.HTML)]
    texts = {getattr(block, name, None) for block in ours for name in ("label", "info")}
    return {text for text in texts if text} | {block.value for block in ours if isinstance(block, gr.Button)}


def of_jobs(n: int, folder: Path) -> set[str]:
    """All that the tab shows of jobs whose names and numbers are made from `n`."""
    html = status.render(None, str(folder / str(n)), in_webui=True) + "".join(tab.counts(COUNTER, ("1", str(n))))
    for each in jobs(n, folder):
        each.problems, each.notes = [f"problem {n}"], [f"note {n}"]
        html += status.render(each, "", in_webui=True)
    return Texts(html).found


def jobs(n: int, folder: Path) -> Iterator[Job]:
    settings, name = Settings(text="a", name=f"name{n}"), f"name{n}"

    def both(state: Any = "running") -> Iterator[Job]:
        yield Job("1", settings, state=state)
        yield Curve("1", settings, state=state, numbers=[2, n], points=[point(2, n / 10, n / 10)])

    for state in ("running", "failed", "dropped"):
        yield from both(state)
    for phase in PHASES:
        for each in both():
            each.follow(Progress(phase, n, 10 * n, loss=n / 10, explained=n / 10))
            each.phase_began -= 60 * n
            yield each
    for save in (False, True):
        for each in (*both(), Job("1", settings, trained=folder / str(n))):
            each.stop.stop(save=save)
            yield each
    pictures = dict.fromkeys(("prompt", "embedding", "empty"), Image.new("RGB", (8, 8)))
    for emphasis in (None, n / 10):
        _, done = both("done")
        yield done
        figures = replace(point(2, n / 10, emphasis).fidelity, image_distance=n / 10, typed_weight=1 + n / 10)
        figures = replace(figures, explained_in_modes=dict.fromkeys(MODES, n / 10))
        saved = unmeasured(name, folder / str(n))
        result = replace(saved.estimate, fidelity=figures, typed_weight=1 + n / 10, steps=n)
        result = replace(result, embedding=Embedding(name, {"clip_l": torch.ones(n, 6)}))
        saved = replace(saved, estimate=result)
        yield Job("1", settings, state="done", saved=saved, preview=Preview(n, pictures))
    for tokens in (1, n):
        bare = replace(
            result, embedding=Embedding(name, {"clip_l": torch.ones(tokens, 6)}), typed_weight=1, fidelity=None
        )
        yield Job("1", settings, state="done", saved=replace(saved, estimate=bare))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_localization_knows_the_tab_and_the_settings_page(path: Path, toy_host: ToyHost, tmp_path: Path) -> None:
    known = json.loads(path.read_text("utf-8")).keys()
    settings_page = {options.TITLE, options.SUB_FOLDER, *options.DEFAULTS.values(), f"({options.STARTS})"}
    same = of_jobs(3, tmp_path) & of_jobs(7, tmp_path)  # the others tell names and numbers
    asked = of_the_form(Place(toy_host, tmp_path)) | settings_page | same
    assert asked - known == set()
    assert {text for text in known - asked - CHOICES if f'"{text}"' not in SCRIPT} == set()
