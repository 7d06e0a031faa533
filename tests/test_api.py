from __future__ import annotations

import os
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the API needs the package's 'app' extra")

from fastapi import FastAPI
from fastapi.testclient import TestClient
from jobs.test_jobs import Place, ended
from jobs.test_resuming import cut_off
from toy import ToyHost

from embedding_estimate.api import PREFIX, basic, router
from embedding_estimate.files.embedding import read
from embedding_estimate.jobs.readings import MOST
from embedding_estimate.progress import Progress
from embedding_estimate.settings import PARAMETERS

pytestmark = pytest.mark.usefixtures("brief")
GOOD = {"text": "(red:1.5) circle", "name": "it", "tokens": 2, "learning_steps": 5}


@pytest.fixture
def place(toy_host: ToyHost, tmp_path: Path) -> Place:
    return Place(toy_host, tmp_path)


def served(place: Place, *credentials: tuple[str, str], **defaults: Any) -> TestClient:
    app = FastAPI()
    app.include_router(router(place.jobs, lambda: place.embeddings, basic(credentials), defaults))
    return TestClient(app)


@pytest.fixture
def client(place: Place) -> TestClient:
    return served(place)


def finished(client: TestClient, place: Place, **settings: Any) -> dict[str, Any]:
    job = client.post(f"{PREFIX}/estimate", json=GOOD | settings).json()["job"]
    ended(place.jobs.find(job))
    return client.get(f"{PREFIX}/jobs/{job}").json()


def test_an_estimate_from_start_to_end(client: TestClient, place: Place) -> None:
    told = finished(client, place)
    assert told["state"] == "done" and told["problems"] == []
    assert told["curve"][-1]["step"] == 5
    result = told["result"]
    assert Path(result["path"]).is_file() and result["tokens"] == 2 and result["stopped"] == "done"
    assert 0 < result["explained"] <= 1
    assert list(result["passes"]) == ["prepare", "train", "measure"]
    assert result["passes"]["measure"]["forwards"] > 0 == result["passes"]["measure"]["backwards"]
    assert result["notes"] and set(result["notes"]) <= set(told["notes"])  # the name is an ordinary word
    (place.embeddings / "it.preview.png").write_bytes(b"no embedding")
    listed = client.get(f"{PREFIX}/embeddings").json()
    assert listed == {"embeddings": [{"name": "it", "file": "it.safetensors"}]}


@pytest.mark.slow
def test_a_plan_says_what_an_estimate_takes(client: TestClient, place: Place) -> None:
    job = client.post(f"{PREFIX}/plan", json={**GOOD, "name": ""}).json()["job"]
    ended(place.jobs.find(job))
    described = client.get(f"{PREFIX}/jobs/{job}").json()
    assert (described["state"], described["result"]) == ("done", None) and not place.embeddings.exists()
    plan = described["plan"]
    assert plan["tokens"] == 2 and [phase["steps"] for phase in plan["phases"]] == [5]
    assert list(plan["seconds"]) == ["prepare", "train", "measure", "total"] and plan["memory"]["total"] > 0
    assert finished(client, place, measure="Nothing")["plan"] is None
    refused = client.post(f"{PREFIX}/plan", json={**GOOD, "tokens": -1})
    assert refused.status_code == 422 and refused.json()["detail"][0].startswith("tokens=-1")


@pytest.mark.slow
def test_what_a_request_leaves_out_is_the_places_default(place: Place) -> None:
    client = served(place, format="pt")
    assert finished(client, place, measure="Nothing")["result"]["path"].endswith("it.pt")
    two = finished(client, place, name="two", format="safetensors", measure="Nothing")
    assert two["result"]["path"].endswith("two.safetensors")
    described = client.get("/openapi.json").json()["paths"][f"{PREFIX}/estimate"]["post"]
    told = described["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert (told["format"]["default"], told["tokens"]["default"]) == ("pt", 0)


@pytest.mark.parametrize(
    ("wrong", "lines"),
    [
        ({"tokens": -1, "optimizer": "Adm"}, ["tokens=-1", "optimizer='Adm'"]),
        ({"text": " "}, ["text is empty"]),
        ({"tokens": "many"}, ["tokens='many'"]),
        ({"tokns": 3}, ["'tokns' is not a setting"]),
        ({"name": "a:b"}, ["name"]),
        ({"text": "x" * 1_000_000}, ["text has 1,000,000 characters: 100,000 are allowed; shorten it"]),
        ({f"{number}": 1 for number in range(9)}, [*["is not a setting"] * 5, "4 more names are not settings"]),
    ],
)
def test_bad_settings_are_answered_with_every_line(client: TestClient, wrong: dict[str, Any], lines: list[str]) -> None:
    answer = client.post(f"{PREFIX}/estimate", json=GOOD | wrong)
    assert answer.status_code == 422
    assert len(answer.json()["detail"]) == len(lines)
    for line, expected in zip(answer.json()["detail"], lines, strict=True):
        assert expected in line


def test_a_taken_name(client: TestClient, place: Place) -> None:
    finished(client, place, measure="Nothing")
    answer = client.post(f"{PREFIX}/estimate", json=GOOD)
    assert answer.status_code == 422 and "it.safetensors" in answer.json()["detail"][0]


def test_files_whose_names_are_no_text_are_listed_escaped(client: TestClient, place: Place) -> None:
    (place.embeddings / os.fsdecode(b"sub\xff")).mkdir(parents=True)
    (place.embeddings / os.fsdecode(b"sub\xff/caf\xe9.pt")).touch()
    answer = client.get(f"{PREFIX}/embeddings")
    assert answer.status_code == 200
    assert answer.json() == {"embeddings": [{"name": r"caf\udce9", "file": r"sub\udcff/caf\udce9.pt"}]}
    (place.embeddings / os.fsdecode(b"sub\xff/it.png")).touch()
    taken = client.post(f"{PREFIX}/estimate", json=GOOD)
    assert taken.status_code == 422 and r"sub\udcff/it.png has this name" in taken.json()["detail"][0]


@pytest.mark.slow
def test_a_folder_whose_name_is_no_text_is_saved_in(toy_host: ToyHost, tmp_path: Path) -> None:
    place = Place(toy_host, tmp_path / os.fsdecode(b"caf\xe9"))
    told = finished(served(place), place)
    assert told["state"] == "done" and r"caf\udce9" in told["result"]["path"]


def test_a_job_that_the_model_cannot_do_says_why(client: TestClient, place: Place) -> None:
    told = finished(client, place, sampler="Heun")
    assert told["state"] == "failed" and "Heun" in told["problems"][0] and told["result"] is None


def test_a_second_job_is_refused_and_a_job_can_be_stopped(
    client: TestClient, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(place.host, "show", lambda *_: not go.wait(60))
    job = client.post(f"{PREFIX}/estimate", json=GOOD).json()["job"]
    refused = client.post(f"{PREFIX}/estimate", json=GOOD | {"name": "other"})
    assert refused.status_code == 409 and "is being estimated" in refused.json()["detail"][0]
    assert client.post(f"{PREFIX}/jobs/{job}/stop", params={"save": False}).status_code == 200
    go.set()
    ended(place.jobs.find(job))
    assert client.get(f"{PREFIX}/jobs/{job}").json()["state"] == "dropped"


def test_a_stop_saves_unless_it_says_otherwise(client: TestClient, place: Place) -> None:
    job = client.post(f"{PREFIX}/estimate", json=GOOD | {"learning_steps": 100_000}).json()["job"]
    while not place.jobs.find(job).curve:
        time.sleep(0.01)
    assert client.post(f"{PREFIX}/jobs/{job}/stop").json()["job"] == job
    ended(place.jobs.find(job))
    described = client.get(f"{PREFIX}/jobs/{job}").json()
    assert (described["state"], described["result"]["stopped"]) == ("done", "interrupted")
    assert Path(described["result"]["path"]).is_file()


@pytest.mark.parametrize("body", ["[]", '"text"', "null", "3"])
def test_a_body_that_is_no_object_is_refused_with_a_line(client: TestClient, place: Place, body: str) -> None:
    answer = client.post(f"{PREFIX}/estimate", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json() == {"detail": ["the body is not a JSON object: give the settings as {name: value}"]}
    assert place.jobs.latest is None


@pytest.mark.parametrize(
    ("method", "path", "body", "about"),
    [
        ("POST", "/estimate", "{", "body"),
        ("POST", "/estimate", "", "body"),
        ("POST", "/jobs/x/stop?save=maybe", "", "query.save"),
        ("GET", "/jobs/x?since=later", "", "query.since"),
    ],
)
def test_every_refusal_is_a_line(client: TestClient, method: str, path: str, body: str, about: str) -> None:
    answer = client.request(method, PREFIX + path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    (line,) = answer.json()["detail"]
    assert line.startswith(about)


def test_choices_are_taken_in_any_case(client: TestClient, place: Place) -> None:
    described = finished(client, place, part="u-NET", optimizer="ADAM", sampler="EULER", measure="nothing")
    assert (described["state"], described["result"]["part"]) == ("done", "U-Net")
    (file,) = place.embeddings.glob("it.*")
    settings = read(file).provenance["settings"]
    assert [settings[name] for name in ("optimizer", "sampler", "measure")] == ["Adam", "Euler", "Nothing"]


@pytest.mark.slow
def test_a_curve_is_bounded_and_given_from_a_step_on(client: TestClient, place: Place) -> None:
    job = place.start(sampler="none")  # which ends before its first step
    ended(job)
    job.follow(Progress("train", 20, 60_020, 0.1, 0.93, "Sketch"))
    for step in range(21, 60_021):
        job.follow(Progress("train", step, 60_020, 0.5, 0.25, "Attention"))
    path = f"{PREFIX}/jobs/{job.id}"
    answer = client.get(path)
    curve = answer.json()["curve"]
    assert len(curve) <= MOST and len(answer.content) < 50_000
    assert curve[0] == {"step": 20, "loss": 0.1, "explained": 0.93, "stretch": "Sketch"}
    assert curve[-1] == {"step": 60_020, "loss": 0.5, "explained": 0.25, "stretch": "Attention"}
    later = client.get(path, params={"since": 30_000}).json()["curve"]
    assert later == [reading for reading in curve if reading["step"] > 30_000] and 0 < len(later) < len(curve)
    assert client.get(path, params={"since": 60_020}).json()["curve"] == []


def test_an_unknown_job(client: TestClient) -> None:
    assert client.get(f"{PREFIX}/jobs/nothing").status_code == 404
    assert client.post(f"{PREFIX}/jobs/nothing/stop", params={"save": True}).status_code == 404


def test_no_route_answers_without_the_credentials(place: Place) -> None:
    client = served(place, ("ann", "secret"), ("bob", "other"))
    routes = [("POST", "/estimate"), ("GET", "/jobs/x"), ("POST", "/jobs/x/stop?save=true"), ("GET", "/embeddings")]
    for method, path in routes:
        for credentials in (None, ("ann", "other")):
            refused = client.request(method, PREFIX + path, json=GOOD, auth=credentials)
            assert refused.status_code == 401 and refused.headers["WWW-Authenticate"] == "Basic"
            line = "user or password is missing or wrong: give those that the program was started with, by HTTP Basic"
            assert refused.json()["detail"] == [line]
    assert place.jobs.latest is None
    assert client.get(f"{PREFIX}/embeddings", auth=("bob", "other")).status_code == 200


def test_the_description_has_every_setting(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"][f"{PREFIX}/estimate"]["post"]
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    assert list(schema["properties"]) == [parameter.name for parameter in PARAMETERS]
    assert schema["required"] == ["text", "name"]
    for parameter in PARAMETERS:
        told = schema["properties"][parameter.name]
        assert told["title"] == parameter.label and parameter.help in told["description"]
        assert told.get("enum", []) == list(parameter.choices)
        assert told.get("maxLength") == parameter.longest


def test_what_was_cut_off_is_listed_resumed_and_discarded(client: TestClient, place: Place, tmp_path: Path) -> None:
    assert client.get(f"{PREFIX}/cut-off").json() == {"cut_off": []}
    for name in ("it", "other"):
        cut_off(tmp_path, name=name)
    damaged = tmp_path / "embeddings-steps" / "damaged.resume.safetensors"
    damaged.write_bytes(b"no state")
    os.utime(damaged, (0, 0))
    other, it, broken = client.get(f"{PREFIX}/cut-off").json()["cut_off"]
    assert (it["name"], it["steps"], it["problem"], other["name"]) == ("it", 60, None, "other")
    assert 0 < it["step"] < 60 and datetime.fromisoformat(it["date"])
    line = f"{damaged}: cannot be read or is damaged; discard it, and estimate again"
    assert (broken["name"], broken["step"], broken["problem"]) == ("damaged", 0, line)

    job = place.jobs.find(client.post(f"{PREFIX}/cut-off/it").json()["job"])
    assert job
    ended(job)
    assert job.state == "done" and (place.embeddings / "it.safetensors").is_file()
    assert client.delete(f"{PREFIX}/cut-off/other").json() == {"discarded": "other"}
    refused = client.post(f"{PREFIX}/cut-off/damaged")
    assert (refused.status_code, refused.json()) == (422, {"detail": [line]})
    assert client.delete(f"{PREFIX}/cut-off/damaged").status_code == 200
    refused = client.delete(f"{PREFIX}/cut-off/it")
    none = f"'it': no estimate of this name was cut off; {tmp_path / 'embeddings-steps'} has none"
    assert (refused.status_code, refused.json()) == (422, {"detail": [none]})
