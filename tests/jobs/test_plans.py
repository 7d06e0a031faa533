"""What an estimate would take, found out in a job that saves nothing."""

import threading
from pathlib import Path
from typing import Any

import pytest
from jobs.test_jobs import TEXT, Place, ended
from jobs.test_measuring import after
from toy import ToyHost

from embedding_estimate.errors import SettingsError
from embedding_estimate.jobs.job import Plan
from embedding_estimate.settings import Settings


@pytest.fixture
def place(toy_host: ToyHost, tmp_path: Path) -> Place:
    return Place(toy_host, tmp_path)


def planned(place: Place, **settings: Any) -> Plan:
    plan = place.jobs.plan(
        Settings(**{"text": TEXT, "learning_steps": 5, "steps": 4, "measure": "Nothing", **settings})
    )
    ended(plan)
    return plan


def test_its_passes_are_those_of_the_estimate(place: Place) -> None:
    plan = planned(place)
    assert (plan.state, plan.problems, plan.saved) == ("done", [], None)
    assert place.saved == [] and not place.embeddings.exists()
    job = place.finished(text=TEXT, learning_steps=5, steps=4, measure="Nothing")
    assert job.saved
    assert plan.facts["passes"]["prepare"] == {
        name: [number] * 2 for name, number in vars(job.saved.estimate.passes.prepare).items()
    }
    assert plan.facts["seconds"]["prepare"] > 0 < plan.facts["memory"]["total"]


def test_a_name_is_not_needed_and_a_wrong_one_is_refused(place: Place) -> None:
    assert planned(place).settings.name == "unnamed"
    assert planned(place, name="it").facts["name"] == "it"
    with pytest.raises(SettingsError, match="name"):
        planned(place, name="a:b")
    with pytest.raises(SettingsError, match="text is empty"):
        planned(place, text="")


def test_it_makes_room_for_an_estimate(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    go, encode = threading.Event(), place.host.model.encode

    def wait(*arguments: Any, **options: Any) -> object:
        assert go.wait(60)
        return encode(*arguments, **options)

    monkeypatch.setattr(place.host.model, "encode", wait)
    plan = place.jobs.plan(Settings(text=TEXT))
    monkeypatch.setattr(place.host, "borrow", after(place.host, plan, go))
    job = place.start(measure="Nothing")
    ended(job)
    assert (plan.state, plan.facts, job.state) == ("dropped", {}, "done")


def test_what_the_model_refuses_fails(place: Place) -> None:
    plan = planned(place, sampler="Heun")
    assert plan.state == "failed" and "Heun" in plan.problems[0]
