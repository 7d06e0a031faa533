"""Generated inputs: each is taken, or refused in lines; none is a traceback."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shaking import shaken
from toy import ToyHost

from embedding_estimate.errors import EmbeddingError, SettingsError
from embedding_estimate.files.embedding import Embedding, read, write
from embedding_estimate.hosts.standalone import grammar, infotext
from embedding_estimate.jobs.jobs import Jobs
from embedding_estimate.settings import PARAMETERS, Settings

pytestmark = pytest.mark.slow

PIECES = [
    *("(", ")", "[", "]", ":", "|", "\\", ",", "{", "}", "<", ">", "#", " ", "\n", "AND", "BREAK", "{}"),
    *("red", "circle", "1.2", "-1", "1e9", "0.5", "Steps: 20, ", "Negative prompt: "),
    *("\uff13", "\uff08", "\uff09", "é", "\u200b", "\U0001f600", "\x00"),
]
VALUES: list[Any] = [None, True, -1, 0, 1, 3, 10**30, 1e308, float("nan"), float("inf"), "", "red", "{}", [], {}, [1]]


def text(draws: random.Random, most: int = 30) -> str:
    return "".join(draws.choices(PIECES, k=draws.randrange(most)))


def value(draws: random.Random) -> Any:
    return draws.choice([draws.choice(VALUES), text(draws)])


def settings(draws: random.Random) -> dict[str, Any]:
    """Some settings with some values, most of them wrong, beside what every estimate needs."""
    names = [parameter.name for parameter in PARAMETERS] + ["unknown", ""]
    drawn = {draws.choice(names): value(draws) for _ in range(draws.randrange(4))}
    return {"text": "(red:1.5)", "name": f"x{draws.randrange(10**9)}", **drawn}


def test_settings(times: Callable[[int, int], int]) -> None:
    draws, ended = random.Random(shaken(0)), Counter[str]()
    for _ in range(times(300, 2000)):
        try:
            Settings.from_mapping(settings(draws)).check()
            ended["taken"] += 1
        except SettingsError as error:
            assert error.problems and all(line and "\n" not in line for line in error.problems)
            ended["refused"] += 1
    print(dict(ended))


def test_prompts(times: Callable[[int, int], int]) -> None:
    draws = random.Random(shaken(0))
    for _ in range(times(300, 2000)):
        prompt = text(draws, most=60)
        parts = grammar.compose(prompt)
        assert len(parts) == len(grammar._AND.split(prompt))
        for part, _ in parts:
            stages = grammar.schedule(part, 10)
            assert stages[-1][0] == 10 and all(grammar.emphasise(stage) for _, stage in stages)
        assert set(infotext.parse(prompt)) >= {"Prompt", "Negative prompt"}


@pytest.mark.filterwarnings("ignore")  # torch's, of what it then refuses
def test_files(times: Callable[[int, int], int], tmp_path: Path) -> None:
    draws, ended = random.Random(shaken(0)), Counter[str]()
    whole = []
    for extension in ("safetensors", "pt"):
        path = tmp_path / f"whole.{extension}"
        write(Embedding("whole", {"clip_l": torch.ones(2, 8)}, {"settings": {"text": "red"}}), path)
        whole.append((path.suffix, path.read_bytes()))
    for number in range(times(200, 1500)):
        extension, data = draws.choice(whole)
        broken = bytearray(data)
        for _ in range(draws.randrange(1, 8)):
            place = draws.randrange(len(broken))
            broken[place : place + draws.randrange(3)] = draws.randbytes(draws.randrange(3))
        path = tmp_path / f"{number}{draws.choice(['.safetensors', '.pt', '.bin', extension])}"
        path.write_bytes(broken[: draws.choice([len(broken), draws.randrange(len(broken))])])
        try:
            assert read(path).tokens
            ended["read"] += 1
        except EmbeddingError as error:
            assert "\n" not in str(error) and path.name in str(error)
            ended["refused"] += 1
        path.unlink()
    print(dict(ended))


def test_requests(times: Callable[[int, int], int], tmp_path: Path, brief: None) -> None:
    pytest.importorskip("fastapi")
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from embedding_estimate.api import PREFIX, basic, router

    host = ToyHost()
    jobs = Jobs(lambda settings: host, lambda: tmp_path / "embeddings", lambda: tmp_path / "reports")
    app = FastAPI()
    app.include_router(router(jobs, lambda: tmp_path / "embeddings", basic([]), {}))
    client = TestClient(app, raise_server_exceptions=False)
    draws, ended = random.Random(shaken(0)), Counter[int]()
    quick = {"text": "(red:1.5)", "tokens": 2, "steps": 2, "learning_steps": 2, "measure": "Nothing"}
    bodies = (lambda: settings(draws), lambda: {**quick, "name": f"x{draws.randrange(10**9)}"}, lambda: value(draws))
    for _ in range(times(100, 500)):
        body = draws.choice(bodies)()
        try:
            answer = client.post(f"{PREFIX}/estimate", json=body)
        except (ValueError, UnicodeEncodeError):  # no JSON: the client refuses to send it
            answer = client.post(f"{PREFIX}/estimate", content=repr(body).encode("utf-8", "surrogatepass"))
        ended[answer.status_code] += 1
        assert answer.status_code in (200, 409, 422), answer.text
        job = answer.json()["job"] if answer.status_code == 200 else "unknown"
        asked = client.get(f"{PREFIX}/jobs/{job}")
        assert asked.status_code == (200 if answer.status_code == 200 else 404)
        stopped = client.post(f"{PREFIX}/jobs/{job}/stop", params={"save": draws.choice([True, False, "x"])})
        assert stopped.status_code in (200, 404, 422)
        assert client.get(f"{PREFIX}/embeddings").status_code == 200
    while jobs.latest and jobs.latest.state == "running":
        time.sleep(0.01)
    print(dict(ended))
