"""Who may ask the standalone app, by HTTP; in a browser: test_browser.py."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from toy import ToyHost

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")

from fastapi.testclient import TestClient

from embedding_estimate import app
from embedding_estimate.ui import guard

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # see conftest.py

HERE = "127.0.0.1:7860"
PREDICT = "/gradio_api/run/predict"
BODY = {"data": [], "fn_index": 0, "session_hash": "x"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> app.Standalone:
    return app.Standalone(ToyHost(), tmp_path_factory.mktemp("guarded") / "embeddings")


@pytest.fixture(scope="module")
def client(event_loops: None, place: app.Standalone) -> Iterator[TestClient]:
    """One page for all: what is refused leaves nothing behind."""
    with TestClient(app.guarded(app.page(place), "127.0.0.1"), base_url=f"http://{HERE}") as client:
        yield client


@pytest.mark.parametrize(
    "host", [HERE, "localhost:7860", "LocalHost:9000", "[::1]:7860", "127.0.0.1", "192.168.1.7:80"]
)
def test_the_app_answers_to_its_names(client: TestClient, host: str) -> None:
    """Another port leads here through a tunnel; no page can make a numeric address lead here."""
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert client.get("/config", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example:7860", "", "[::1", "localhost@evil"]
)
@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/theme.css"])
def test_a_rebound_name_gets_nothing(client: TestClient, host: str, path: str) -> None:
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 403 and "is no name of this app" in answer.text


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:8000", "http://localhost:7860", "http://[", ""]
)
def test_another_origin_can_neither_read_nor_send(client: TestClient, place: app.Standalone, origin: str) -> None:
    for method, path in (("GET", "/config"), ("POST", PREDICT), ("OPTIONS", PREDICT)):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = client.request(method, path, headers=headers, json=BODY if method == "POST" else None)
        assert answer.status_code == 403 and "another page has asked for this" in answer.text
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert place.jobs.latest is None


@pytest.mark.parametrize(
    ("site", "mode", "destination", "taken"),
    [
        ("same-origin", "cors", "empty", True),
        ("none", "navigate", "document", True),
        ("cross-site", "navigate", "document", True),  # a link to the app
        ("cross-site", "navigate", "iframe", False),  # the app within another page
        ("cross-site", "no-cors", "script", False),
        ("same-site", "no-cors", "image", False),  # of another port of this machine
        ("same-site", "cors", "empty", False),
    ],
)
def test_what_a_browser_says_of_the_page_that_asks(
    client: TestClient, site: str, mode: str, destination: str, taken: bool
) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": destination}
    assert client.get("/", headers=headers).status_code == (200 if taken else 403)


def test_the_page_itself_is_heard(client: TestClient) -> None:
    headers = {"Origin": f"http://{HERE}", "Sec-Fetch-Site": "same-origin"}
    (poll,) = [
        dependency["id"]
        for dependency in client.get("/config").json()["dependencies"]
        if dependency["targets"] == [[_id(client, "embedding_estimate_poll"), "click"]]
    ]
    answer = client.post(PREDICT, headers=headers, json=BODY | {"fn_index": poll})
    assert answer.status_code == 200 and 'data-state="idle"' in str(answer.json()["data"][0])


def _id(client: TestClient, element: str) -> int:
    components = client.get("/config").json()["components"]
    return next(each["id"] for each in components if each["props"].get("elem_id") == element)


def test_no_file_is_taken(client: TestClient) -> None:
    for path in ("/gradio_api/upload", "/gradio_api/upload/", "/upload"):
        answer = client.post(path, files={"files": ("x.txt", b"text")})
        assert answer.status_code == 403 and "is nothing that the app takes" in answer.text


@pytest.mark.parametrize(
    "path", ["/gradio_api/call/start", "/gradio_api/api/start", "/gradio_api/process_recording", "/"]
)
def test_nothing_else_is_taken(client: TestClient, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert client.request(method, path).status_code == 403


def test_handlers_are_no_api(client: TestClient) -> None:
    told = client.get("/gradio_api/info").json()
    assert told["named_endpoints"] == {} and told["unnamed_endpoints"] == {}


def test_a_websocket_is_closed_at_once() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never(*_: Any) -> None:
        raise AssertionError

    scope = {
        "type": "websocket",
        "path": "/",
        "headers": [(b"host", HERE.encode()), (b"origin", b"http://evil.example")],
    }
    asyncio.run(guard.Guard(never, guard.served_names("127.0.0.1"))(scope, never, send))
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


def test_names_of_this_machine_are_taken_where_others_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard.socket, "gethostname", lambda: "Box")
    for address in ("127.0.0.1", "::1", "localhost"):
        assert guard.served_names(address) == {"localhost", address}
    for address in ("0.0.0.0", "::", "192.168.1.7", "box.lan"):
        assert guard.served_names(address) == {"localhost", address, "box", "box.local"}
