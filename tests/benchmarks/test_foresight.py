"""Rank correlations of foreseen and true errors."""

from __future__ import annotations

import pytest
import torch
from shaking import shaken
from toy import ToyHost

from benchmarks.foresight import PATH, SIZES, foresee, uniform
from benchmarks.prompts import Prompt
from embedding_estimate.fidelity.protocol import TRAJECTORY
from embedding_estimate.teaching.probes import probe
from embedding_estimate.teaching.teacher import Task, Teacher

pytestmark = pytest.mark.tools


def test_uniform_probes_count_every_layer_alike_and_find_no_error_in_the_prompt(toy_host: ToyHost) -> None:
    with toy_host.borrow() as model:
        teacher = Teacher(model, Task("red (circle:1.8)", False, ("dull",), 32, 32))
        side, empty = (teacher.replaced(text, TRAJECTORY) for text in (teacher.task.text, ""))
        generator = torch.Generator().manual_seed(shaken(0))
        states = teacher.record(side, TRAJECTORY, [0], 1)
        probes = uniform(probe(model, [(side, states)], rows=20, batch=4, generator=generator), side, empty, generator)
        layers = sum(len(alike.attentions) for alike in probes.layers)
        assert float(probes.error(empty.stages[0].parts[0][0])) == pytest.approx(layers)
        assert float(probes.error(side.stages[0].parts[0][0])) == pytest.approx(0)


@pytest.mark.slow
def test_probes_foresee_the_errors_of_a_prompts_vectors(toy_host: ToyHost) -> None:
    row = foresee(toy_host, Prompt("red (circle:1.8)"), [Prompt("star cat")], seed=0)
    assert row.vectors == len(PATH) + 2 * 2 * len(SIZES) + 1
    assert row.probes > 0.8
    assert not toy_host.lent
