"""Every text of the tab has a translation, and no translation is left over.

Texts that are always the same are keys of the dictionary. So are lines with values in them: {} stands for each value,
and the javascript translates these. A line without a translation is shown in English.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from toy import ToyHost
from ui.lines import everything, lines
from ui.test_status import point, unmeasured

pytest.importorskip("gradio", reason="the tab needs the package's 'app' extra")

import gradio as gr
from ui.test_tab import Place

from embedding_estimate.fidelity.previews import Preview
from embedding_estimate.fidelity.wording import PHASES
from embedding_estimate.files import names
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.hosts.webui import options
from embedding_estimate.jobs.job import Curve, Job
from embedding_estimate.model.host import MODES
from embedding_estimate.optimizers import LOSSES, OPTIMIZERS
from embedding_estimate.progress import Progress
from embedding_estimate.settings import FORMATS, PARAMETERS, PARTS, Settings
from embedding_estimate.teaching.teacher import Task
from embedding_estimate.ui import PREFIX, status, tab
from embedding_estimate.ui.result import PICTURED

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # see conftest.py

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "localizations").glob("*.json"))
CHOICES = {choice for parameter in PARAMETERS for choice in parameter.choices}
NAMES = {*PARTS, *OPTIMIZERS, *FORMATS, *(set(LOSSES) - {"cosine"})}  # that are the same in every language
PLACE = re.compile(r"\{(\d*)(t?)\}")  # of a value in a translation; t: it is translated in turn
NOT_SHOWN = {
    "Zero Terminal SNR",  # a WebUI's setting
    "cosine with restarts",  # a choice of earlier versions, quoted as it is
    "Embedding Estimate {}",  # on a card
    "For the {}; {} vectors",
    "To be typed as {}",
    "Explained {} by protocol {}",
    "Does what this does: {}",
    "Embedding Estimate: {} {}/{}",  # in the WebUI's own progress
    "typed as {}",  # on the command line
    "typed as the word {}",
    "{} or more",  # within a line that is known with it
    "{} to {}",
    "width: {}",  # a style
    "a number of {} bits",  # within a line that quotes it
    "words look like names of embeddings that are not loaded",  # within the next line
    "contexts are used in training or selection",
    "embeddings collide with {} in this way; rename it",
    "{} more {}",
    "{} stands for {}",  # with its quotes in the dictionary
    "{} stands for {}; leave it out",
    "{} (before {})",  # a folder
    "{} (before)",
    "{} (before*)",
    "before the {} part",  # part of the next line
    "{}:{} left",
}
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


@pytest.fixture(scope="module")
def of_the_form(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """What the form shows."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        tab.build(Place(ToyHost(), tmp_path_factory.mktemp("form")))
    shown = [block for block in blocks.blocks.values() if f"{PREFIX}hidden" not in (block.elem_classes or ())]
    ours = [block for block in shown if str(block.elem_id).startswith(PREFIX) and not isinstance(block, gr.HTML)]
    texts = {getattr(block, name, None) for block in ours for name in ("label", "info")}
    buttons = {block.value for block in ours if isinstance(block, gr.Button)}
    return frozenset({text for text in texts if text} | buttons)


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
        for each in (*both(), Job("1", settings, trained=[folder / str(n)])):
            each.stop.stop(save=save)
            yield each
    for known in ({}, {"explained": n / 10, "emphasis_explained": None}):
        job = Job("1", settings, trained=[folder / str(n)], typed=name, figures=known)
        job.follow(Progress("measure", n, 10 * n))
        yield job
    pictures = dict.fromkeys(("prompt", "embedding", "empty"), Image.new("RGB", (8, 8)))
    for emphasis in (None, n / 10):
        _, done = both("done")
        yield done
        figures = replace(point(2, n / 10, emphasis).fidelity, image_distance=n / 10, typed_weight=1 + n / 10)
        figures = replace(figures, explained_in_modes=dict.fromkeys(MODES, n / 10))
        saved = unmeasured(name, folder / str(n))
        result = replace(saved.estimate, fidelity=figures, task=typed(1 + n / 10), steps=n)
        result = replace(result, embedding=Embedding(name, {"clip_l": torch.ones(n, 6)}))
        images = {row: [pictures["prompt"]] for row in PICTURED}
        saved = replace(saved, estimate=result, pictures=images if emphasis else {})
        yield Job("1", settings, state="done", saved=saved, preview=Preview(n, pictures))
    for tokens in (1, n):
        bare = replace(
            result, embedding=Embedding(name, {"clip_l": torch.ones(tokens, 6)}), task=typed(1), fidelity=None
        )
        yield Job("1", settings, state="done", saved=replace(saved, estimate=bare))


def typed(weight: float) -> Task:
    return Task("(red:1.5) circle", False, ("",), 32, 32, weight)


class Dictionary:
    """A localization as the javascript reads it."""

    def __init__(self, path: Path):
        self.known: Mapping[str, str] = json.loads(path.read_text("utf-8"))
        patterns = sorted((key for key in self.known if "{}" in key), key=lambda key: -len(key.replace("{}", "")))
        self._patterns = {key: re.compile("(.*?)".join(map(re.escape, key.split("{}"))), re.DOTALL) for key in patterns}

    def translated(self, line: str) -> str | None:
        """None where there is no translation."""
        if line in self.known:
            return self.known[line]
        for key, pattern in self._patterns.items():
            if found := pattern.fullmatch(line):
                return self._filled(self.known[key], found.groups())
        return None

    def _filled(self, own: str, values: Sequence[str]) -> str:
        following = iter(values)

        def value(place: re.Match[str]) -> str:
            value = values[int(place[1])] if place[1] else next(following)
            return self.translated(value) or value if place[2] else value

        return PLACE.sub(value, own)

    def lacks(self, line: str) -> bool:
        """Whether all of a line stays as it is."""
        return line not in self.known and self.translated(line) in (None, line)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def dictionary(request: pytest.FixtureRequest) -> Dictionary:
    return Dictionary(request.param)


def settings_page() -> set[str]:
    return {options.TITLE, options.SUB_FOLDER, *options.DEFAULTS.values(), f"({options.STARTS})"}


def test_a_localization_knows_the_tab_and_the_settings_page(
    dictionary: Dictionary, of_the_form: frozenset[str], tmp_path: Path
) -> None:
    asked = of_the_form | settings_page() | (CHOICES - NAMES)
    assert asked - dictionary.known.keys() == set()
    shown = of_jobs(3, tmp_path)
    theirs = ("name3", str(tmp_path), "problem 3", "note 3")  # names and folders of users
    assert {text for text in filter(dictionary.lacks, shown) if not any(own in text for own in theirs)} == set()


def test_a_localization_knows_the_lines_of_problems_and_notes(dictionary: Dictionary) -> None:
    asked = (lines() | set(names.GRAMMAR.values())) - NOT_SHOWN
    assert sorted(filter(dictionary.lacks, asked)) == []


def test_a_help_text_names_choices_as_the_form_shows_them(dictionary: Dictionary) -> None:
    for parameter in PARAMETERS:
        explained = dictionary.known.get(parameter.help, "")
        translated = [choice for choice in parameter.choices if dictionary.known.get(choice, choice) != choice]
        assert [choice for choice in translated if re.search(rf"\b{re.escape(choice)}\b", explained)] == [], (
            parameter.name
        )


def test_no_translation_is_left_over(dictionary: Dictionary, of_the_form: frozenset[str], tmp_path: Path) -> None:
    asked = of_the_form | settings_page() | CHOICES | of_jobs(3, tmp_path)
    asked = asked | {*names.GRAMMAR.values(), *everything()}
    used = {key for key in dictionary.known if key in asked or f'"{key}"' in SCRIPT}
    patterns = [re.compile("(.*?)".join(map(re.escape, text.split("{}"))), re.DOTALL) for text in asked if "{}" in text]
    rest = {
        key
        for key in dictionary.known.keys() - used
        if not any(map(re.Pattern.fullmatch, patterns, [key] * len(patterns)))
    }
    assert rest == set()


def test_values_keep_their_places(dictionary: Dictionary) -> None:
    """All values of a line are in its translation in order, or some by their numbers."""
    for english, own in dictionary.known.items():
        numbers = [place for place, _ in PLACE.findall(own)]
        if any(numbers):
            assert {int(number) for number in numbers} <= set(range(english.count("{}"))), english
        else:
            assert len(numbers) == english.count("{}"), english


REFINER = "model.ckpt: refiner にはテキストエンコーダーが 1 つしかありません。base のチェックポイントを選んでください"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("tokens=900 is out of range: choose 0 to 75", "tokens=900 は範囲外です。0～75 の値にしてください"),  # noqa: RUF001
        (
            "name='a,b': ',' stands for the end of a tag; leave it out",
            "name='a,b': タグの区切り（','）として解釈されます。取り除いてください",  # noqa: RUF001
        ),
        ("loss='MES' is unknown: did you mean MSE?", "loss='MES' は使えません。MSE のことですか？"),  # noqa: RUF001
        ("model.ckpt: a refiner has one text encoder only: choose the base checkpoint", REFINER),
        ("it: a tokens loss seconds", "it: a tokens loss seconds"),  # a user's words, whatever they are
        ("nobody says this", None),
    ],
)
def test_japanese_lines(line: str, told: str | None) -> None:
    assert Dictionary(ROOT / "localizations" / "ja_JP.json").translated(line) == told
