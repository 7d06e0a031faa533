"""The tab in a real browser, headless Chromium by Playwright; for tests of the standalone app and of WebUIs."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e '.[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needed = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")

QUIET = ("background-networking", "component-update", "sync", "gpu")
LONG = int(os.environ.get("PATIENCE", "300")) * 1000  # ms; the machine may be slow, and busy too
STATE = "document.querySelector('#embedding_estimate_state').textContent"
STEP = f"() => Number((/training, (\\d+)/.exec({STATE}) || [0, 0])[1])"  # 0 while it prepares
COMPLAINTS = ("error", "warning")
LOCAL = re.compile(r"https?://127\.0\.0\.1:|data:|blob:")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@contextmanager
def served(
    command: Sequence[str | Path], log: Path, *, ready: str, patience: float, cwd: Path, env: Mapping[str, str] = {}
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that writes to the log, once it has said there that it is `ready`; ended afterwards.

    It has `patience` seconds for that, and is not asked before: a request that comes too early kills a WebUI.
    """
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=output, env={**os.environ, **env})
    try:
        until = time.monotonic() + patience
        while ready not in log.read_text():
            assert server.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        server.kill()
        server.wait()


@contextmanager
def chromium(*arguments: str) -> Iterator[object]:
    with playwright.sync_playwright() as started:
        quiet = [f"--disable-{what}" for what in QUIET]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *quiet, *arguments])
        yield browser
        browser.close()


class Tab:
    """A page that shows the tab, and what the browser had to complain about."""

    def __init__(self, page, url: str, about: str = ""):  # Playwright may not be there
        """Of the complaints only those `about` something, for a page that is not all ours."""
        self.page = page
        self.about = about
        self.complaints: list[str] = []
        page.set_default_timeout(LONG)
        page.on("console", lambda said: said.type in COMPLAINTS and self._note(f"{said.text} {said.location}"))
        page.on("pageerror", lambda error: self._note(f"{error} {error.stack}"))
        page.on("request", lambda request: LOCAL.match(request.url) or self._note(request.url))
        page.goto(url)
        self.state("idle", "running", "done", "failed", "dropped")

    @classmethod
    @contextmanager
    def opened(cls, browser, url: str, about: str = "", script: str = "") -> Iterator["Tab"]:
        """In a context of its own, the script run before any of the page's; in the end there may be no complaints."""
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_init_script(script)
        tab = cls(context.new_page(), url, about)
        yield tab
        context.close()
        assert not tab.complaints, "\n".join(tab.complaints)

    def _note(self, complaint: str) -> None:
        if self.about in complaint:
            self.complaints.append(complaint)

    def fill(self, **values: str) -> None:
        for name, value in values.items():
            self.page.locator(f"#embedding_estimate_{name} :is(textarea, input)").first.fill(value)

    def choose(self, name: str, value: str) -> None:
        """Among some that are shown, or in a list that opens."""
        exactly = re.compile(rf"^\W*{re.escape(value)}\s*$")
        self.page.locator(f"#embedding_estimate_{name} input").first.wait_for(
            state="attached"
        )  # its fold has just opened
        if self.page.locator(f"#embedding_estimate_{name} input[type=radio]").count():
            self.page.locator(f"#embedding_estimate_{name} label").filter(has_text=exactly).first.click()
            return
        self.page.locator(f"#embedding_estimate_{name} input").first.click()
        options = self.page.locator(f"#embedding_estimate_{name} li, [role=listbox] li")
        options.filter(has_text=exactly).first.click()

    def press(self, button: str) -> None:
        self.page.click(f"#embedding_estimate_{button}:not([disabled])")

    def state(self, *states: str) -> str:
        """Waits for one of these; returns what is shown."""
        shown = ", ".join(f"#embedding_estimate_state [data-state={state}]" for state in states)
        return self.page.locator(shown).first.inner_text()

    def says(self, element: str, text: str) -> None:
        playwright.expect(self.page.locator(f"#embedding_estimate_{element}").first).to_contain_text(text, timeout=LONG)

    def lacks(self, element: str, text: str) -> None:
        """Waits until it does not say so any more."""
        shown = self.page.locator(f"#embedding_estimate_{element}").first
        playwright.expect(shown).not_to_contain_text(text, timeout=LONG)

    def has(self, **values: str) -> None:
        """Waits until the form shows these."""
        for name, wanted in values.items():
            box = self.page.locator(f"#embedding_estimate_{name} :is(textarea, input)").first
            playwright.expect(box).to_have_value(wanted, timeout=LONG)

    def result(self, typed: str) -> str:
        """Waits until the job is over and has made what is typed like this; returns what is shown, fold and all."""
        shown = self.page.locator("#embedding_estimate_state [data-state=done]")
        playwright.expect(shown.locator("code").first).to_have_text(typed, timeout=LONG)
        shown.locator("summary").click()
        text: str = shown.inner_text()
        return text

    def moves(self) -> None:
        """Waits until the training is a step further."""
        self.says("state", "training")
        self.page.wait_for_function(f"before => ({STEP})() > before", arg=self.page.evaluate(STEP))

    def shoot(self, name: str, folder: Path) -> None:
        """In light and dark, wide and narrow; nothing may have to be scrolled sideways."""
        for theme in ("light", "dark"):
            self.page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
            for width in (1280, 360):
                self.page.set_viewport_size({"width": width, "height": 900})
                self.page.wait_for_timeout(300)  # ms; colours fade
                self.page.screenshot(path=folder / f"{name}-{theme}-{width}.png", full_page=True)
                assert self.page.evaluate("document.documentElement.scrollWidth") <= width
        self.page.set_viewport_size({"width": 1280, "height": 900})
