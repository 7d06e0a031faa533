"""The tab by itself in a real browser: `embedding-estimate ui` with a tiny model, in headless Chromium.

SCREENSHOTS=FOLDER keeps the pictures to look at.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_estimate.files import tensor_tree
from embedding_estimate.files.embedding import read
from embedding_estimate.settings import Settings
from embedding_estimate.storage.resuming import FORMAT

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
pytest.importorskip("diffusers", reason="the model needs diffusers: pip install -e '.[app]'")
from browser import Tab, chromium, needed, playwright  # needs Playwright
from ui.running_app import running

pytestmark = [
    needed,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # see conftest.py
]

ROOT = Path(__file__).parents[2]
ENDLESS = "100000"  # learning steps
CUT_OFF = "them => them.filter(it => it.scrollHeight > it.clientHeight + 1).map(it => it.id)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with running(folder) as url:
        yield url


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


def test_an_example_is_filled_in(opened: Tab, folder: Path, shots: Path) -> None:
    """Only a page without any job offers it; this one's server has none yet."""
    opened.page.get_by_role("button", name="Fill in an example").click()
    opened.has(text="(red:1.5) circle", name="red-circle")
    opened.says("text_count", "2 tokens")
    opened.shoot("example", shots)


def test_a_prompt_becomes_an_embedding(opened: Tab, folder: Path, shots: Path) -> None:
    opened.fill(text="(red:1.5) circle", steps="4", tokens="3", learning_steps="5", name="no,name")
    opened.says("text_count", "2 tokens")
    opened.press("estimate")
    opened.says("problems", "stands for the end of a tag")
    opened.shoot("problems", shots)

    opened.fill(name="red-disc")
    opened.lacks("problems", "stands for")  # it is out of date
    opened.page.get_by_text("More settings").click()
    opened.choose("measure", "Full")
    opened.press("estimate")
    result = opened.result("red-disc")
    assert result.startswith("Type this in your prompt: red-disc") and "emphasis explained" in result
    assert "The embedding has 3 vectors." in result and "The training took 5 steps." in result
    assert opened.page.locator(".embedding_estimate_report img").evaluate("picture => picture.naturalWidth") > 500
    assert opened.page.locator("#embedding_estimate_problems li").count() == 0
    assert read(folder / "embeddings" / "red-disc.safetensors").tokens == 3
    assert (folder / "embeddings-reports" / "red-disc.png").is_file()
    opened.shoot("done", shots)

    opened.fill(text="red-disc")
    opened.says("text_count", "3 tokens")  # the word is read as the embedding now


def bottom(tab: Tab, selector: str) -> float:
    """Where an element ends, in pixels from the top of the page."""
    end: float = tab.page.locator(selector).first.evaluate("it => it.getBoundingClientRect().bottom + scrollY")
    return end


def test_no_setting_is_cut_off_on_a_narrow_page(opened: Tab) -> None:
    """Of two that share a row on wider pages, one may be much taller than the other."""
    opened.page.set_viewport_size({"width": 420, "height": 900})
    opened.page.locator("#embedding_estimate_more > .label-wrap:not(.open)").click()
    settings = opened.page.locator("#embedding_estimate_settings .form > *:visible")
    playwright.expect(settings.nth(20)).to_be_visible()
    assert settings.evaluate_all(CUT_OFF) == []


@pytest.mark.parametrize("width", [420, 900, 1400])
def test_the_button_and_the_progress_are_in_sight(opened: Tab, width: int) -> None:
    """Nobody has to scroll past the form, which takes some 2,000 pixels on the narrowest of these pages."""
    opened.page.set_viewport_size({"width": width, "height": 900})
    opened.fill(text="(red:1.5) circle", steps="4", learning_steps=ENDLESS, name=f"in-sight-{width}")
    opened.press("estimate")
    opened.moves()
    assert bottom(opened, "#embedding_estimate_estimate") < 900
    assert bottom(opened, "#embedding_estimate_interrupts") < 900
    assert bottom(opened, "#embedding_estimate_state [role=progressbar]") < 900
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.press("interrupt_drop")
    opened.state("dropped")


def test_it_says_how_long_it_takes_before_the_start(opened: Tab, folder: Path, shots: Path) -> None:
    opened.fill(text="(red:1.5) circle", steps="4", learning_steps="5")
    opened.press("plan")
    assert "How long? About 0:" in opened.state("done", "failed")
    assert "Memory on top of the model: " in opened.state("done")
    opened.shoot("planned", shots)
    assert not list(folder.glob("*.safetensors"))


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
    assert "The embedding has 4 vectors." in opened.result("four")
    assert read(folder / "embeddings" / "four.safetensors").tokens == 4  # the form knows what was clicked


def test_a_typed_weight_is_told_and_copied(opened: Tab, shots: Path) -> None:
    opened.page.get_by_text("More settings").click()
    opened.fill(text="(red:1.5) circle", steps="4", tokens="2", learning_steps="5", typed_weight="1.3", name="disc")
    opened.choose("measure", "Full")
    opened.press("estimate")
    assert "bare name" in opened.result("(disc:1.3)")
    opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.page.get_by_role("button", name="Copy").click()
    opened.page.get_by_role("button", name="Copied").wait_for()
    assert opened.page.evaluate("navigator.clipboard.readText()") == "(disc:1.3)"
    opened.shoot("typed", shots)


def test_full_figures_are_measured_when_asked_for(opened: Tab, shots: Path) -> None:
    opened.fill(text="(red:1.5) circle", steps="4", tokens="2", learning_steps="5", name="quick-one")
    opened.press("estimate")
    assert "These are quick figures." in opened.result("quick-one")
    opened.shoot("quick", shots)
    opened.page.get_by_role("button", name="Measure fully").click()
    opened.says("state", "image distance")
    assert "These are quick figures." not in opened.state("done", "failed")
    opened.shoot("full", shots)


def test_a_job_outlives_its_page(opened: Tab, browser, url: str, folder: Path, shots: Path) -> None:
    opened.fill(text="(red:1.5) circle", steps="4", learning_steps=ENDLESS, name="half-way")
    opened.page.focus("#embedding_estimate_estimate")
    opened.page.keyboard.press("Enter")
    opened.moves()
    opened.shoot("running", shots)

    opened.page.reload()
    assert "half-way" in opened.state("running")
    opened.has(text="(red:1.5) circle", name="half-way", steps="4", learning_steps=ENDLESS)  # what is being estimated

    with Tab.opened(browser, url) as other:
        assert "half-way" in other.state("running")
        other.fill(text="blue square", name="second")
        other.press("estimate")
        other.says("problems", "half-way is being estimated")
        other.press("interrupt_save")
        assert "half-way" in other.state("done", "failed")
        other.lacks("problems", "half-way")

    assert "The training was interrupted after" in opened.result("half-way")
    assert read(folder / "embeddings" / "half-way.safetensors").provenance["stopped"] == "interrupted"
    assert opened.page.is_disabled("#embedding_estimate_interrupt_save")


def test_a_job_is_dropped(opened: Tab, folder: Path) -> None:
    opened.fill(text="(red:1.5) circle", steps="4", learning_steps=ENDLESS, name="unwanted")
    opened.press("estimate")
    opened.moves()
    opened.press("interrupt_drop")
    assert "the result was dropped" in opened.state("dropped", "done", "failed")
    assert not (folder / "embeddings" / "unwanted.safetensors").exists()


def test_a_name_is_looked_at_while_it_is_typed(opened: Tab, folder: Path, shots: Path) -> None:
    opened.fill(name="a,b")
    opened.says("name_remarks", "name='a,b': ',' stands for the end of a tag; leave it out")
    opened.fill(name="red circle")
    opened.says("name_remarks", "red circle: every prompt with these ordinary words would call it")
    opened.shoot("name", shots)
    (folder / "embeddings").mkdir(exist_ok=True)
    (folder / "embeddings" / "zorgle.pt").write_bytes(b"")
    opened.fill(name="zorgle")
    opened.says("name_remarks", "zorgle: zorgle.pt has this name already; choose another or overwrite it")
    opened.page.get_by_text("More settings").click()
    opened.page.locator("#embedding_estimate_format").get_by_label("pt", exact=True).check()
    opened.page.locator("#embedding_estimate_overwrite input").check()
    opened.lacks("name_remarks", "zorgle")


def test_what_is_read_from_an_infotext_is_said(opened: Tab, shots: Path) -> None:
    settings = "Steps: 4, Sampler: Euler a, Schedule type: Karras, CFG scale: 6.5, Size: 64x32, Seed: 12"
    opened.fill(text=f"a (red:1.5) circle\nNegative prompt: grey\n{settings}")
    opened.press("read")
    opened.says("filled", "Filled in: Text a (red:1.5) circle, Other prompt grey")  # quotes are drawn
    for filled in (
        "Sampler Euler a",
        "Sampling steps 4",
        "CFG scale 6.5",
        "Width 64",
        "Height 32",
        "Seed 12",
    ):
        opened.says("filled", filled)
    opened.has(text="a (red:1.5) circle", other_prompt="grey", steps="4", seed="12")
    playwright.expect(
        opened.page.locator("#embedding_estimate_other_prompt textarea")
    ).to_be_visible()  # the fold is open
    opened.shoot("filled", shots)
    opened.fill(text="something else")
    opened.lacks("filled", "Filled in")


def test_lines_with_values_are_translated_as_a_webui_would_have_it(browser, url: str, shots: Path) -> None:
    known = (ROOT / "localizations" / "ja_JP.json").read_text("utf-8")
    with Tab.opened(browser, url, script=f"window.localization = {known}") as tab:
        tab.fill(text="(red:1.5) circle", name="a,b", steps="4", learning_steps="5")
        tab.says("text_count", "\u30c8\u30fc\u30af\u30f3")
        tab.press("estimate")
        tab.says("problems", "name='a,b': \u30bf\u30b0\u306e\u533a\u5207\u308a")
        tab.fill(name="kyokuchi")
        tab.page.get_by_text("More settings").click()
        tab.choose("measure", "Full")
        tab.press("estimate")
        assert "\u5b66\u7fd2\u306f 5 \u30b9\u30c6\u30c3\u30d7\u3067\u3057\u305f" in tab.result("kyokuchi")
        tab.shoot("japanese", shots)


def test_what_was_cut_off_is_offered(opened: Tab, folder: Path, shots: Path) -> None:
    state = folder / "embeddings-steps" / "cut-disc.resume.safetensors"
    state.parent.mkdir(exist_ok=True)
    settings = Settings(text="(red:1.5) circle", name="cut-disc").to_dict()
    where = {"step": 60, "steps": 140, "made_with": {"version": "0"}}
    state.write_bytes(tensor_tree.packed({"format": FORMAT, "settings": settings, "contexts": [], "host": {}, **where}))
    opened.page.reload()
    opened.says("cut_off", "An estimate of cut-disc was cut off at step 60 of 140 on 20")
    opened.shoot("cut-off", shots)
    opened.press("resume")
    assert "cannot be resumed: the version of this program was '0' when it began" in opened.state("failed")
    opened.press("discard")
    opened.page.locator("#embedding_estimate_discard").wait_for(state="hidden")
    assert not state.exists()
