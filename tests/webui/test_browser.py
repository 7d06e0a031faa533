"""The whole way in a running WebUI, in a browser.

WEBUI_DIR names the WebUI, WEBUI_PYTHON its Python (its `venv` unless said otherwise), WEBUI_ARGS arguments of its own,
such as --no-gradio-queue.
It is started with a data folder for the test, which goes away afterwards; a small SD1 checkpoint must be among its
models. SCREENSHOTS=FOLDER keeps pictures to look at, PATIENCE=600 waits as many seconds, as a full-size model on a CPU
needs.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import LONG, Tab, chromium, free_port, needed, playwright, served
from webui_arguments import arguments, knows

from embedding_estimate.files.embedding import read

WEBUI = Path(os.environ.get("WEBUI_DIR", ""))
PYTHON = Path(os.environ.get("WEBUI_PYTHON", WEBUI / "venv" / "bin" / "python"))
pytestmark = [needed, pytest.mark.skipif(not WEBUI.name, reason="WEBUI_DIR names no WebUI to test in")]

ROOT = Path(__file__).parents[2]
START = "import sys; sys.path.insert(0, '.'); sys.argv[0] = 'launch.py'; import launch; launch.start()"  # no set-up
ENDLESS = "2000"  # learning steps
SETTINGS = {"show_progress_type": "Approx cheap", "sd_vae": "None"}  # the defaults would download something
INFOTEXT = """a (blue:1.4) square
Negative prompt: grey
Steps: 3, Sampler: Euler a, CFG scale: 5, Seed: 4, Size: 64x128, Model: any"""


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """The WebUI's data folder, with the extension; in its own folder, beyond which 1.2 serves no extension's files."""
    for missing in (path for path in (WEBUI / "modules", PYTHON) if not path.exists()):
        pytest.fail(f"{missing} does not exist: WEBUI_DIR names a WebUI, WEBUI_PYTHON its Python")
    with tempfile.TemporaryDirectory(prefix="test-", dir=WEBUI) as name:
        folder = Path(name)
        (folder / "extensions").mkdir()
        (folder / "extensions" / "embedding-estimate").symlink_to(ROOT)
        (folder / "config.json").write_text(json.dumps(SETTINGS))
        (folder / "styles.csv").write_text("name,prompt,negative_prompt\nold,an old painting,photo\n")
        yield folder


@pytest.fixture(scope="module")
def url(data: Path) -> Iterator[str]:
    port, log = free_port(), data / "log"
    folders = ["--ckpt-dirs" if knows(WEBUI, "--ckpt-dirs") else "--ckpt-dir", str(WEBUI / "models/Stable-diffusion")]
    if (WEBUI / "modules_forge").exists():  # it serves its own scripts only where they lie in its data folder
        folders += ["--gradio-allowed-path", str(WEBUI)]
    more = ["--port", str(port), "--data-dir", str(data), *folders, *os.environ.get("WEBUI_ARGS", "").split()]
    command = [PYTHON, "-c", START, *arguments(WEBUI), *more]
    offline = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    with served(command, log, ready="Startup time", patience=max(LONG / 1000, 300), cwd=WEBUI, env=offline):
        yield f"http://127.0.0.1:{port}/"
        told = log.read_text()
        assert "embedding_estimate" not in told, told  # as a traceback of ours would name it


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser, url: str) -> Iterator[Tab]:
    with Tab.opened(browser, url, about="embedding_estimate") as tab:
        enter(tab, "Embedding Estimate")
        yield tab


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    return Path(os.environ.get("SCREENSHOTS", tmp_path))


def enter(tab: Tab, title: str) -> None:
    tab.page.locator("#tabs > .tab-nav button", has_text=title).click()


def txt2img(tab: Tab, prompt: str = "", negative: str = "") -> None:
    """Fills in the page next door, quick to generate."""
    enter(tab, "txt2img")
    tab.page.fill("#txt2img_prompt textarea", prompt)
    tab.page.fill("#txt2img_neg_prompt textarea", negative)
    for name, value in {"steps": "3", "width": "64", "height": "64"}.items():
        tab.page.fill(f"#txt2img_{name} input[type=number]", value)
    tab.page.fill("#txt2img_seed input", "7")


def choose_negative(tab: Tab) -> None:
    """In our tab: Forge Neo's pages have fields of that name."""
    tab.page.locator("#embedding_estimate_prompt_type").get_by_label("Negative Prompt", exact=True).check()


def start(tab: Tab, **values: str) -> None:
    small = {"text": "(red:1.5) circle", "steps": "3", "tokens": "2", "width": "64", "height": "64"}
    tab.page.locator("#embedding_estimate_more > .label-wrap:not(.open)").click()
    tab.choose("measure", "Nothing")
    tab.fill(**small | values)
    tab.press("estimate")


def reload_ui(tab: Tab) -> None:
    with tab.page.expect_navigation(timeout=LONG):
        tab.page.get_by_text("Reload UI", exact=True).last.click()
    enter(tab, "Embedding Estimate")


def saved(data: Path, name: str) -> Path:
    """Where an embedding is saved: Forge Neo has the folder among the models."""
    among_models = data / "models" / "embeddings"
    return (among_models if among_models.is_dir() else data / "embeddings") / f"{name}.safetensors"


def test_a_result_is_used_in_the_next_image(opened: Tab, data: Path, shots: Path) -> None:
    start(opened, learning_steps=ENDLESS, preview_every="10", name="red-disc")
    opened.moves()
    opened.says("state", "The same seed at step")
    opened.shoot("webui-running", shots)
    opened.press("interrupt_save")
    assert "The training was interrupted after" in opened.result("red-disc")
    assert read(saved(data, "red-disc")).tokens == 2
    playwright.expect(opened.page.locator(".embedding_estimate_preview img")).to_have_count(3)
    opened.shoot("webui-done", shots)

    opened.page.get_by_role("button", name="To the prompt").click()
    box = opened.page.locator("#txt2img_prompt textarea")
    playwright.expect(box).to_be_visible(timeout=LONG)
    assert box.input_value() == "red-disc"
    txt2img(opened, "red-disc")
    opened.page.click("#txt2img_generate")
    playwright.expect(opened.page.locator("#html_info_txt2img").first).to_contain_text("red-disc", timeout=LONG)
    opened.page.locator("#txt2img_gallery img").first.wait_for()

    opened.page.reload()
    enter(opened, "txt2img")
    if opened.page.locator("#txt2img_extra_networks").count():  # an early WebUI's button, which opens them
        opened.page.click("#txt2img_extra_networks")
    opened.page.locator("#txt2img_extra_tabs > .tab-nav button", has_text="Textual Inversion").click()
    card = opened.page.locator("#txt2img_textual_inversion_cards .card", has_text="red-disc")
    playwright.expect(card).to_be_visible(timeout=LONG)


def test_what_stands_in_txt2img_is_taken(opened: Tab) -> None:
    txt2img(opened, "a (red:1.5) circle", "grey,\nblurry")
    opened.page.locator("#txt2img_styles input").click()
    opened.page.locator("#txt2img_styles li").filter(has_text="old").first.click()
    sampler = opened.page.locator("#txt2img_sampling input").first.input_value()
    scale = opened.page.locator("#txt2img_cfg_scale input[type=number]").input_value()
    enter(opened, "Embedding Estimate")
    opened.press("take")
    opened.has(text="a (red:1.5) circle, an old painting", other_prompt="grey, blurry, photo")
    opened.has(seed="7", steps="3", width="64", height="64", guidance_scale=scale, sampler=sampler)
    opened.says("text_count", "7 tokens")

    choose_negative(opened)
    opened.press("take")
    opened.has(text="grey,\nblurry, photo", other_prompt="a (red:1.5) circle, an old painting")


def test_an_infotext_is_read(opened: Tab) -> None:
    opened.fill(text="only a prompt")
    opened.press("read")
    opened.says("problems", "there is no infotext in Text")
    opened.fill(text=INFOTEXT)
    opened.press("read")
    opened.has(text="a (blue:1.4) square", other_prompt="grey", sampler="Euler a", seed="4")
    opened.has(steps="3", guidance_scale="5", width="64", height="128")


def test_contexts_come_from_the_last_image_and_the_saved_styles(opened: Tab, shots: Path) -> None:
    txt2img(opened, "a circle, on the left", "grey")
    opened.page.click("#txt2img_generate")
    playwright.expect(opened.page.locator("#html_info_txt2img").first).to_contain_text("on the left", timeout=LONG)
    enter(opened, "Embedding Estimate")
    opened.page.locator("#embedding_estimate_more > .label-wrap:not(.open)").click()
    opened.press("own_prompts")
    opened.has(templates="{}\na circle, on the left, {}\nan old painting, {}")
    opened.says("own_prompts_taken", "2 contexts from the last image and the saved styles")
    opened.shoot("webui-contexts", shots)
    choose_negative(opened)
    opened.press("own_prompts")
    opened.has(templates="{}\ngrey, {}\nphoto, {}")


def test_a_second_estimate_is_refused_and_the_hosts_interrupt_saves(opened: Tab, data: Path) -> None:
    start(opened, learning_steps=ENDLESS, name="half-way")
    opened.moves()
    opened.press("estimate")
    opened.says("problems", "half-way is being estimated")

    txt2img(opened, "a circle")
    opened.page.click("#txt2img_generate")  # waits behind the job
    opened.page.click("#txt2img_interrupt")
    opened.says("state", "Type this in your prompt: half-way")
    assert read(saved(data, "half-way")).provenance["stopped"] == "interrupted"
    opened.page.locator("#txt2img_gallery img").first.wait_for()


def test_reload_ui_interrupts_and_saves(opened: Tab, data: Path) -> None:
    """The WebUI itself means an interrupt by it; what was saved is there on the new page."""
    start(opened, learning_steps=ENDLESS, name="survivor")
    opened.moves()
    reload_ui(opened)
    opened.result("survivor")
    assert read(saved(data, "survivor")).provenance["stopped"] == "interrupted"
    start(opened, learning_steps="3", name="after-it")
    opened.result("after-it")


def test_a_job_is_dropped(opened: Tab, data: Path) -> None:
    start(opened, learning_steps=ENDLESS, name="unwanted")
    opened.moves()
    opened.page.reload()
    enter(opened, "Embedding Estimate")
    assert "unwanted" in opened.state("running")
    opened.press("interrupt_drop")
    assert "the result was dropped" in opened.state("dropped", "failed", "done")
    assert not saved(data, "unwanted").exists()


def test_the_settings_page_has_defaults(opened: Tab, data: Path) -> None:
    opened.has(preview_every="0")
    enter(opened, "Settings")
    opened.page.locator("#settings > .tab-nav button", has_text="Embedding Estimate").click()
    opened.page.locator("#setting_embedding_estimate_format").get_by_label("pt", exact=True).check()
    opened.page.fill("#setting_embedding_estimate_preview_every input", "20")
    opened.page.click("#settings_submit")
    playwright.expect(opened.page.locator("#settings_result").first).to_contain_text("changed", timeout=LONG)
    reload_ui(opened)
    opened.has(preview_every="20")
    assert opened.page.locator("#embedding_estimate_format").get_by_label("pt", exact=True).is_checked()
    remembered = json.loads((data / "ui-config.json").read_text("utf-8"))
    assert not [path for path in remembered if "File format" in path or "Preview every" in path]
