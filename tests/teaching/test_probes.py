"""What probes foresee is what the prediction does, to first order; and the model is left as it was."""

import pytest
import torch
from shaking import shaken
from toy import ToyModel

from embedding_estimate.model.host import Conditioning
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.probes import Probes, probe
from embedding_estimate.teaching.sides import Side, States, error
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

TRAJECTORY = Trajectory("Euler", "Karras", 6, 3.0)


@pytest.fixture
def teacher(toy: ToyModel) -> Teacher:
    return Teacher(toy, Task.of(Settings(text="red (circle:1.8)"), toy))


@pytest.fixture
def side(teacher: Teacher) -> Side:
    return teacher.replaced(teacher.task.text, TRAJECTORY)


@pytest.fixture
def states(teacher: Teacher, side: Side) -> States:
    return teacher.record(side, TRAJECTORY, range(40), 8)


def probed(toy: ToyModel, side: Side, states: States, rows: int, seed: int = 0) -> Probes:
    generator = torch.Generator().manual_seed(shaken(seed))
    return probe(toy, [(side, states)], rows=rows, batch=7, generator=generator)


def context_of(side: Side) -> torch.Tensor:
    return side.stages[0].parts[0][0].context


def moved(toy: ToyModel, side: Side, size: float, seed: int) -> Side:
    generator = torch.Generator().manual_seed(shaken(seed))
    context = context_of(side)
    noise = size * torch.randn(context.shape, generator=generator, dtype=context.dtype)
    stage = side.stages[0]
    return Side(toy, [type(stage)(stage.until, ((Conditioning(context + noise), 1.0),))])


def test_all_rows_foresee_the_error(toy: ToyModel, side: Side, states: States) -> None:
    """The toy's rows do not touch each other's place in the prediction, so that nothing is left out."""
    probes = probed(toy, side, states, rows=16 * len(states))
    for seed in range(5):
        for size in (0.01, 0.3):
            there = moved(toy, side, size, seed)
            foreseen = float(probes.error(there.stages[0].parts[0][0]))
            assert foreseen == pytest.approx(error(there, states, 8), rel=0.2)


@pytest.mark.slow
def test_a_sample_of_the_rows_foresees_it_too(toy: ToyModel, side: Side, states: States) -> None:
    """On average over samples: one of them may be off by a third."""
    samples = [probed(toy, side, states, rows=2 * len(states), seed=seed) for seed in range(12)]
    assert {len(probes.aim) for probes in samples} == {2 * len(states)}
    there = moved(toy, side, 0.3, seed=1)
    foreseen = [float(probes.error(there.stages[0].parts[0][0])) for probes in samples]
    assert sum(foreseen) / len(foreseen) == pytest.approx(error(there, states, 8), rel=0.2)


def test_the_prompt_itself_has_no_error(toy: ToyModel, side: Side, states: States) -> None:
    assert float(probed(toy, side, states, rows=50).error(side.stages[0].parts[0][0])) < 1e-20


def test_no_hook_stays(toy: ToyModel, side: Side, states: States) -> None:
    probed(toy, side, states, rows=50)
    assert not toy.attention.to_q._forward_hooks and not toy.attention.to_out._forward_pre_hooks


def test_the_global_random_state_plays_no_part(toy: ToyModel, side: Side, states: States) -> None:
    before = torch.get_rng_state()
    probed(toy, side, states, rows=50)
    assert torch.equal(before, torch.get_rng_state())


def test_rows_are_read_for_another_prompt_without_the_unet(toy: ToyModel, teacher: Teacher, states: States) -> None:
    """As if they had been probed with its readings for an aim, each stage of its schedule at its own states."""
    side, other = (teacher.replaced(text, TRAJECTORY) for text in ("red (circle:1.8)", "[blue:green:2] star"))
    probes = probed(toy, side, states, rows=4 * len(states))
    toy.denoised = 0
    aimed = probes.aimed(other)
    assert toy.denoised == 0
    blue, green = (stage.parts[0][0] for stage in other.stages)
    until = other.stages[0].until
    early, late = (aimed.evaluation <= until), (aimed.evaluation > until)
    assert 0 < int(early.sum()) < len(aimed.aim) and int(late.sum()) == len(aimed.aim) - int(early.sum())
    torch.testing.assert_close(aimed.aim[early], probes.read(blue)[0, early], rtol=0, atol=0)
    torch.testing.assert_close(aimed.aim[late], probes.read(green)[0, late], rtol=0, atol=0)
    assert float(probes.aimed(side).error(side.stages[0].parts[0][0])) < 1e-20


def test_rows_that_are_dealt_out_stand_for_all(toy: ToyModel, side: Side, states: States) -> None:
    there = moved(toy, side, 0.3, seed=2).stages[0].parts[0][0]
    probes = probed(toy, side, states, rows=4 * len(states))
    whole, rows = float(probes.error(there)), len(probes.aim)
    portions = probes.dealt(3)
    assert sum(len(portion.aim) for portion in portions) == rows
    assert sum(float(portion.error(there)) for portion in portions) == pytest.approx(3 * whole)
    for portion in portions:
        assert set(portion.evaluation.tolist()) == set(range(6))
        assert float(portion.error(side.stages[0].parts[0][0])) < 1e-20


def test_states_of_several_prompts_are_probed_each_with_its_own(toy: ToyModel, teacher: Teacher) -> None:
    sides = [teacher.replaced(text, TRAJECTORY) for text in ("red (circle:1.8)", "blue star")]
    seen = [(side, teacher.record(side, TRAJECTORY, range(20), 8)) for side in sides]
    there = moved(toy, sides[0], 0.3, seed=1)
    generator = torch.Generator().manual_seed(shaken(0))
    probes = probe(toy, seen, rows=16 * 240, batch=7, generator=generator)
    own = float(probes.aimed(sides[0]).error(there.stages[0].parts[0][0]))
    alone = [
        float(probed(toy, side, states, 16 * 120).aimed(sides[0]).error(there.stages[0].parts[0][0]))
        for side, states in seen
    ]
    assert own == pytest.approx(sum(alone) / 2, rel=0.2)  # other signs are drawn


def test_several_contexts_are_read_at_once_as_one_by_one(toy: ToyModel, side: Side, states: States) -> None:
    probes = probed(toy, side, states, rows=4 * len(states))
    several = [moved(toy, side, 0.3, seed).stages[0].parts[0][0] for seed in range(3)]
    together = probes.read(Conditioning(torch.cat([each.context for each in several])))
    torch.testing.assert_close(together, torch.cat([probes.read(each) for each in several]))
    assert float((together[0] - together[1]).abs().max()) > 1e-3
