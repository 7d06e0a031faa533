"""The tab by itself, in a browser: `embedding-estimate ui`."""

from __future__ import annotations

import socket
import sys
import sysconfig
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware

from embedding_estimate.errors import EmbeddingError, EstimateError
from embedding_estimate.hosts.standalone import infotext
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.hosts.standalone.sampler_names import CHOICES
from embedding_estimate.jobs.job import Job
from embedding_estimate.jobs.jobs import Jobs
from embedding_estimate.storage import saving
from embedding_estimate.storage.phrases import parts_of
from embedding_estimate.ui import tab
from embedding_estimate.ui.guard import Guard, served_names

TITLE = "Embedding Estimate"
PORTS = range(7860, 7960)  # gradio's own
PATIENCE = 300  # seconds that a job is given to stop: one pass of a large model on a slow processor takes a while
CLOSING = 1  # seconds that are waited for answers under way


class Standalone:
    """`ui.place.Place` around a model that this process has loaded itself."""

    in_webui = False

    def __init__(self, host: StandaloneHost, embeddings: Path):
        embeddings = embeddings.resolve()
        reports = saving.beside(embeddings, "reports")
        self.jobs = Jobs(lambda settings: host, lambda: embeddings, lambda: reports, on_saved=self._name)
        self._host = host
        self._embeddings = embeddings

    def folder(self) -> str:
        return str(self._embeddings)

    def choices(self, parameter: str) -> Sequence[str]:
        return CHOICES.get(parameter, ())

    def defaults(self) -> Mapping[str, Any]:
        return {}

    def token_count(self, text: str) -> int:
        return self._host.token_count(text)

    def name_warnings(self, name: str) -> Sequence[str]:
        return self._host.name_warnings(name)

    def txt2img(self) -> Mapping[str, Any]:
        return {}

    def as_infotext(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return values

    def own_contexts(self, negative: bool) -> Sequence[str]:
        return ()

    def style_lists(self) -> Sequence[Any]:
        return ()

    def save_style(self, name: str, phrase: str, negative: bool) -> tuple[str, Sequence[str]]:
        return "", ()

    def infotext(self, text: str) -> Mapping[str, Any]:
        return infotext.parse(text)

    def _name(self, job: Job) -> None:
        """Makes the next prompts read the name."""
        if job.saved is None:  # dropped, and the prompts read what they did
            return
        try:
            for word in parts_of(job.saved.estimate.embedding):
                self._host.add_embedding(word.name, word.vectors)
        except EmbeddingError as error:
            job.notes.append(str(error))


def page(place: Standalone) -> gr.Blocks:
    """The page of the standalone app: the tab under a heading."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {TITLE}")
        tab.build(place)
    return blocks


def serve(
    place: Standalone, *, address: str, port: int | None, in_browser: bool, on_start: Callable[[str], None]
) -> None:
    """Serves the tab until Ctrl-C, and calls `on_start` with its URL. A job under way is then stopped and saved.

    Raises `EstimateError` where nobody can listen there.
    """
    listening = free(address, port)
    url = url_of(address, listening)
    app = guarded(page(place), address)
    server = uvicorn.Server(uvicorn.Config(app, host=address, port=listening, log_level="warning"))
    thread = threading.Thread(target=server.run, name="embedding-estimate-page", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise EstimateError(f"{url} could not be opened; choose another address or port")
            time.sleep(0.01)
        on_start(url)
        if in_browser:
            webbrowser.open(url)
        threading.Event().wait()
    finally:
        finish(place.jobs)
        server.should_exit = True
        thread.join(CLOSING)


def url_of(address: str, port: int) -> str:
    """Where a browser on this machine finds what listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def guarded(blocks: gr.Blocks, address: str) -> FastAPI:
    """The page as an application that listens on this address, for nobody but its own page. See `guard`."""
    root = assets()
    app = FastAPI(openapi_url=None, middleware=[Middleware(Guard, names=served_names(address))])
    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        show_error=False,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        css_paths=root / "style.css",
        head=f"<script>{(root / 'javascript' / 'embedding_estimate.js').read_text('utf-8')}</script>",
    )
    return app


def finish(jobs: Jobs, patience: float = PATIENCE) -> None:
    """Ends the job under way, if any, and keeps what it has reached.

    Gives up on one that has not stopped after `patience` seconds, and at once on another Ctrl-C.
    """
    job = jobs.latest
    if job is None or job.state != "running":
        return
    print("stopping; what there is will be saved. Ctrl-C again ends at once", file=sys.stderr)
    job.stop.stop(save=True)
    deadline = time.monotonic() + patience
    with suppress(KeyboardInterrupt):
        while job.state == "running" and time.monotonic() < deadline:
            time.sleep(0.1)
    if job.state == "running":
        print("the job did not stop in time: what it had not saved is lost", file=sys.stderr)


def free(address: str, port: int | None) -> int:
    """The port to listen on: the one asked for or the first free one. Raises `EstimateError` where there is none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for candidate in PORTS if port is None else [port]:
        with suppress(OSError), socket.create_server((address, candidate), family=family):
            return candidate
    where = address if port is None else f"{address}:{port}"
    raise EstimateError(f"{where}: cannot be listened on; choose another address or port")


def assets() -> Path:
    """Where style and javascript are: a WebUI reads them from the checkout's root, a wheel puts them into its data."""
    root = Path(__file__).parents[1]
    return root if (root / "style.css").is_file() else Path(sysconfig.get_path("data"), "share", "embedding-estimate")
