"""How much work an effort is."""

from __future__ import annotations

from typing import Any

import pytest
from suites import quick_first
from toy import ToyHost

from embedding_estimate.estimation.dry_run import DryRun, dry_run
from embedding_estimate.model.meter import Passes
from embedding_estimate.settings import EFFORTS, Settings
from embedding_estimate.teaching.plan import learning_steps, phases


def settings(**values: Any) -> Settings:
    return Settings(**{"text": "(red:1.5) circle", "name": "madeup", "steps": 4, **values})


def planned(**values: Any) -> DryRun:
    return dry_run(settings(**values), ToyHost())


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({}, [40, 80, 160]),
        ({"use": "Alone"}, [70, 140, 280]),
        ({"part": "U-Net"}, [80, 160, 320]),
        ({"part": "Attention + U-Net"}, [80, 160, 320]),
        ({"learning_steps": 30}, [30, 30, 30]),
    ],
)
def test_the_steps_are_half_as_many_or_twice_unless_they_are_set(values: dict[str, Any], steps: list[int]) -> None:
    assert [learning_steps(settings(effort=effort, **values)) for effort in EFFORTS] == steps


def test_what_is_measured_goes_by_the_effort_unless_it_is_set() -> None:
    by_effort = [settings(effort=effort).measure_used for effort in EFFORTS]
    assert by_effort == ["Quick", "Quick with images", "Full with images"]
    assert {settings(effort=effort, measure="Full").measure_used for effort in EFFORTS} == {"Full"}


@pytest.mark.parametrize("effort", EFFORTS)
def test_the_sketch_is_always_the_same(effort: str) -> None:
    sketch, attention = phases(settings(effort=effort, learning_steps=50))
    assert (sketch.steps, attention.steps) == (20, 30)


def test_the_states_by_hand() -> None:
    """Trajectories of four steps, both sides of the guidance at each: six to train on and four to choose on, with 32
    and 16 states of them probed, each once forward and once back; one more forward judges the start and one nothing,
    on those to choose on. Half or twice as much of all. The one trajectory of the sketch is shared."""
    quick, balanced, thorough = (planned(effort=effort, learning_steps=30, measure="Nothing") for effort in EFFORTS)
    backwards = [plan.phases[-1].prepare.most.backwards for plan in (quick, balanced, thorough)]
    assert backwards == [16 + 8, 32 + 16, 64 + 32]
    sketched = quick.phases[0].prepare.most
    assert sketched == balanced.phases[0].prepare.most == thorough.phases[0].prepare.most
    assert quick.prepare.most.forwards < balanced.prepare.most.forwards < thorough.prepare.most.forwards


@pytest.mark.parametrize(("effort", "trajectories"), quick_first(1, [("Quick", 3), ("Balanced", 6), ("Thorough", 12)]))
def test_the_trajectories_of_the_unet_part(effort: str, trajectories: int) -> None:
    """And three to choose on, on 12 states of which the start is judged; both sides of the guidance at each step."""
    (work,) = planned(part="U-Net", templates="{}", effort=effort, measure="Nothing").phases
    assert work.prepare.most == Passes((trajectories + 3) * 4 * 2 + 12, 0)


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({"text": "[blurry] (red:1.5)"}, 6),
        ({"text": r"\[red:blue:10]"}, 6),
        ({"text": "[red:blue:10]"}, 30),
        ({"text": "[red|blue]"}, 30),
        ({"text": "red", "other_prompt": "[red:blue:10]"}, 30),
        ({"text": "red", "templates": "[a:b:3] {}"}, 30),
    ],
)
def test_a_schedule_has_the_steps_that_are_set(values: dict[str, Any], steps: int) -> None:
    *_, phase = phases(Settings(steps=30, **values))
    assert phase.trajectory.steps == steps
