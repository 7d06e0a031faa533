"""What another page in the same browser reaches of the standalone app: nothing. In headless Chromium."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
pytest.importorskip("diffusers", reason="the model needs diffusers: pip install -e '.[app]'")
from browser import chromium, needed  # needs Playwright
from ui.running_app import running

pytestmark = [
    needed,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # see conftest.py
]

ATTEMPTS = (
    "reads",
    "reads without leave",
    "sends JSON",
    "sends text",
    "uploads",
    "listens",
    "opens a socket",
    "sends a form",
    "shows it in a frame",
    "loads it as a script",
)


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("app")) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium("--host-resolver-rules=MAP *.example 127.0.0.1") as started:
        yield started


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """A page on another port of this machine."""
    folder = str(Path(__file__).parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/another_page.html"
        server.shutdown()


@pytest.mark.parametrize("site", ["127.0.0.1", "localhost", "evil.example"])
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_another_page_reaches_nothing(browser, url: str, elsewhere: str, attempt: str, site: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    statuses: list[int] = []  # the browser does not tell of every answer
    page.on("request", lambda request: request.url.startswith(url) and asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.on("response", lambda answer: answer.url.startswith(url) and statuses.append(answer.status))
    page.goto(elsewhere.replace("127.0.0.1", site))
    assert page.evaluate("([name, app]) => attempt(name, app)", [attempt, url]) == ""
    assert asked and set(statuses) <= {403}
    page.close()


def test_a_rebound_name_reaches_nothing(browser, url: str) -> None:
    page = browser.new_page()
    answer = page.goto(url.replace("127.0.0.1", "rebound.example"))
    assert answer.status == 403 and "'rebound.example:" in answer.text() and "is no name of this app" in answer.text()
    assert page.evaluate("fetch('/config').then((answer) => answer.status)") == 403
    page.close()


def test_a_link_to_the_app_is_followed(browser, url: str, elsewhere: str) -> None:
    page = browser.new_page()
    page.goto(elsewhere)
    page.set_content(f"<a href={url}>the app</a>")
    with page.expect_navigation():
        page.click("a")
    page.locator("#embedding_estimate_state [data-state]").first.wait_for()
    page.close()
