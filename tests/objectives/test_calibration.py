from __future__ import annotations

import pytest
import torch
from toy import ToyModel

from embedding_estimate.objectives import preparation_of
from embedding_estimate.objectives.attention import WHOLE
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.plan import ATTENTION_SAMPLER, phases
from embedding_estimate.teaching.sides import error
from embedding_estimate.teaching.teacher import SELECT_SEED, Task, Teacher, Trajectory


@pytest.mark.parametrize("text", ["red (circle:1.8)", "(blue:0.4) star cat"])
def test_held_out_is_the_true_error_of_the_start(toy: ToyModel, text: str) -> None:
    """Rows foresee an error to first order and up to a factor; the factor is measured where the training begins."""
    settings = Settings(text=text, name="x", steps=6, tokens=2, templates="{}")
    phase = phases(settings)[-1]
    teacher = Teacher(toy, Task.of(settings, toy))
    start = {"clip_l": 0.1 * torch.randn(2, 6, dtype=torch.float64)}
    objective = preparation_of(phase, teacher).prepare(start)

    trajectory = Trajectory(ATTENTION_SAMPLER, settings.schedule, settings.steps, settings.guidance_scale)
    seeds = range(SELECT_SEED, SELECT_SEED + WHOLE.select_seeds)
    states = teacher.record(teacher.replaced(text, trajectory), trajectory, seeds, 4).spread(WHOLE.select_states)
    expected = error(teacher.student(start), states, 4)
    assert objective.held_out(start) == pytest.approx(expected, rel=1e-6)
    assert objective.held_out_start == pytest.approx(expected, rel=1e-6)
    assert objective.held_out_empty == pytest.approx(teacher.error_of_nothing(states, trajectory, 4), rel=1e-6)
