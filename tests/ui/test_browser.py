"""The tab by itself in a real browser: `embedding-estimate ui` with a tiny model, in headless Chromium.

SCREENSHOTS=FOLDER keeps the pictures to look at.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shaking import shaken

from embedding_estimate.embedding import read

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
pytest.importorskip("diffusers", reason="the model needs diffusers: pip install -e '.[app]'")
from browser import Tab, chromium, free_port, needed, served  # needs Playwright

from embedding_estimate.demo.random_models import random_model

pytestmark = [
    needed,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # see conftest.py
]

ROOT = Path(__file__).parents[2]
ENDLESS = "2000"  # learning steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The command itself, ended by Ctrl-C."""
    port, log = free_port(), folder / "log"
    model = random_model("sd1", folder / "model", seed=shaken(0))
    options = ["--no-browser", "--port", str(port), "--out", folder / "embeddings", "--model", model]
    command = [sys.executable, "-m", "embedding_estimate", "ui", *options]
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell ignores it in the background, and children inherit
    with served(command, log, ready="is ready", patience=120, cwd=ROOT) as server:
        yield f"http://127.0.0.1:{port}/"
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130
        assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser, url: str) -> Iterator[Tab]:
    with Tab.opened(browser, url) as tab:
        yield tab


@pytest.fixture
def shots(folder: Path) -> Path:
    return Path(os.environ.get("SCREENSHOTS", folder))


def test_a_prompt_becomes_an_embedding(opened: Tab, folder: Path, shots: Path) -> None:
    opened.fill(text="(red:1.5) circle", steps="4", tokens="3", learning_steps="5", name="no,name")
    opened.says("text_count", "2 tokens")
    opened.press("estimate")
    opened.says("problems", "stands for the end of a tag")
    opened.shoot("problems", shots)

    opened.fill(name="red-disc")
    opened.page.get_by_text("More settings").click()
    opened.choose("measure", "Figures")
    opened.press("estimate")
    result = opened.state("done", "failed")
    assert "typed as the word red-disc" in result and "emphasis explained" in result
    assert "5 steps (done)" in result
    assert opened.page.locator(".embedding_estimate_report img").evaluate("picture => picture.naturalWidth") > 500
    assert opened.page.locator("#embedding_estimate_problems li").count() == 0
    assert read(folder / "embeddings" / "red-disc.safetensors").tokens == 3
    assert (folder / "embeddings-reports" / "red-disc.png").is_file()
    opened.shoot("done", shots)

    opened.fill(text="red-disc")
    opened.says("text_count", "3 tokens")  # the word is read as the embedding now


def test_the_number_of_tokens_is_explored_and_chosen(opened: Tab, folder: Path, shots: Path) -> None:
    opened.fill(text="(red:1.5) circle", steps="4", tokens="8", learning_steps="5")
    opened.press("explore")
    opened.says("state", "N = ")
    opened.page.reload()
    opened.page.locator("[data-tokens='1']").wait_for()
    opened.shoot("exploring", shots)
    result = opened.state("done", "failed")
    assert "emphasis explained" in result and len(opened.page.locator("[data-tokens]").all()) == 3
    opened.page.locator("[data-tokens='4'] td").last.click()
    boxes = opened.page.locator("#embedding_estimate_tokens input").all()
    assert {box.input_value() for box in boxes} == {"4"}
    opened.shoot("explored", shots)

    opened.fill(text="(red:1.5) circle", steps="4", learning_steps="5", name="four")
    opened.page.get_by_text("More settings").click()
    opened.choose("measure", "Nothing")
    opened.press("estimate")
    opened.says("state", "typed as the word four")
    assert read(folder / "embeddings" / "four.safetensors").tokens == 4  # the form knows what was clicked


def test_a_typed_weight_is_told_and_copied(opened: Tab, shots: Path) -> None:
    opened.fill(text="(red:1.5) circle", steps="4", tokens="2", learning_steps="5", typed_weight="1.3", name="disc")
    opened.page.get_by_text("More settings").click()
    opened.choose("measure", "Figures")
    opened.press("estimate")
    opened.says("state", "typed as (disc:1.3)")
    assert "bare name" in opened.state("done")
    opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.page.get_by_role("button", name="Copy").click()
    opened.page.get_by_role("button", name="Copied").wait_for()
    assert opened.page.evaluate("navigator.clipboard.readText()") == "(disc:1.3)"
    opened.shoot("typed", shots)


def test_a_job_outlives_its_page(opened: Tab, browser, url: str, folder: Path, shots: Path) -> None:
    opened.fill(text="(red:1.5) circle", steps="4", learning_steps=ENDLESS, name="half-way")
    opened.page.focus("#embedding_estimate_estimate")
    opened.page.keyboard.press("Enter")
    opened.moves()
    opened.shoot("running", shots)

    opened.page.reload()
    assert "half-way" in opened.state("running")

    with Tab.opened(browser, url) as other:
        assert "half-way" in other.state("running")
        other.fill(text="blue square", name="second")
        other.press("estimate")
        other.says("problems", "half-way is being estimated")
        other.press("interrupt_save")
        assert "half-way" in other.state("done", "failed")

    assert "typed as the word half-way" in opened.state("done")
    assert read(folder / "embeddings" / "half-way.safetensors").provenance["stopped"] == "interrupted"
    assert opened.page.is_disabled("#embedding_estimate_interrupt_save")


def test_a_job_is_dropped(opened: Tab, folder: Path) -> None:
    opened.fill(text="(red:1.5) circle", steps="4", learning_steps=ENDLESS, name="unwanted")
    opened.press("estimate")
    opened.says("state", "training")
    opened.press("interrupt_drop")
    assert "the result was dropped" in opened.state("dropped", "done", "failed")
    assert not (folder / "embeddings" / "unwanted.safetensors").exists()
