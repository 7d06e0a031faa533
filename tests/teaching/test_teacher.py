"""The teacher against formulas written out by hand."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from toy import ToyModel

from embedding_estimate.model.host import BorrowedModel, Stage
from embedding_estimate.model.meter import Meter
from embedding_estimate.teaching.sides import Side, States, epsilon, error
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

PATH = Trajectory("Euler", "Karras", 6, 4.0)


def task(text: str, *, negative: bool = False, others: tuple[str, ...] = ("dull",)) -> Task:
    return Task(text, negative, others, 32, 32)


def record(
    toy: BorrowedModel, text: str, seeds: Sequence[int] = (1, 2), batch: int = 2, **kind: Any
) -> tuple[Teacher, Side, States]:
    teacher = Teacher(toy, task(text, **kind))
    side = teacher.replaced(text, PATH)
    return teacher, side, teacher.record(side, PATH, seeds, batch)


def test_states_hold_what_the_pipeline_saw(toy: ToyModel) -> None:
    _, side, states = record(toy, "red (circle:1.5)")
    assert len(states) == 2 * PATH.steps
    for state in states.split(1):
        again = toy.denoise(state.x, state.sigma, side.stages[0].parts[0][0])
        torch.testing.assert_close(state.target, again)  # alone, and so perhaps rounded otherwise


def test_guidance_is_written_out(toy: ToyModel) -> None:
    """One Euler step from sigma to sigma': x + (x - (u + s (c - u))) / sigma * (sigma' - sigma)."""
    _, _, states = record(toy, "red circle", seeds=(3,))
    cond, uncond = states.target[0], states.other[0]
    guided = uncond + 4.0 * (cond - uncond)
    step = states.x[0] + (states.x[0] - guided) / states.sigma[0] * (states.sigma[1] - states.sigma[0])
    torch.testing.assert_close(states.x[1], step)


def test_states_at_some_evaluations_cost_the_way_there(toy: ToyModel) -> None:
    _, side, whole = record(toy, "red circle")
    before = toy.denoised
    some = Teacher(toy, task("red circle")).record(side, PATH, (1, 2), 2, at=(1, 3))
    assert toy.denoised - before == 2 * 2 * 4
    for state in ("x", "sigma", "target", "other", "evaluation", "seed"):
        wanted = getattr(whole, state)[torch.isin(whole.evaluation, torch.tensor([1, 3]))]
        torch.testing.assert_close(getattr(some, state), wanted)


def test_states_between_lie_on_eulers_line(toy: ToyModel) -> None:
    """x + (x - D) / sigma * (sigma' - sigma), at half of the way in sigma^(1/7)."""
    _, _, states = record(toy, "red circle", seeds=(3,))
    (between,) = states[:2].between(1).split(1)
    first, second = states.sigma[0], states.sigma[1]
    sigma = ((first ** (1 / 7) + second ** (1 / 7)) / 2) ** 7
    torch.testing.assert_close(between.sigma[0], sigma)
    guided = states.other[0] + 4.0 * (states.target[0] - states.other[0])
    torch.testing.assert_close(between.x[0], states.x[0] + (states.x[0] - guided) / first * (sigma - first))
    assert int(between.evaluation[0]) == 0 and int(between.seed[0]) == 3
    assert between.target.isnan().all() and between.other.isnan().all()


def test_states_between_take_turns_among_trajectories(toy: ToyModel) -> None:
    _, _, states = record(toy, "red circle", seeds=(3, 4))
    between = states.between(8)
    assert between.seed.tolist() == [3, 4] * 4
    assert between.evaluation.tolist() == [int((place + 0.5) / 8 * 5) for place in range(8)]
    assert (between.sigma[:-1] > between.sigma[1:]).all()


def test_a_trajectory_of_one_step_has_nothing_between(toy: ToyModel) -> None:
    _, _, states = record(toy, "red circle", seeds=(3,))
    first = states[:1]
    assert torch.equal(first.between(2).x, torch.cat([first.x, first.x]))


def test_the_negative_side_is_the_one_recorded(toy: ToyModel) -> None:
    _, side, states = record(toy, "ugly", negative=True, others=("cat",))
    target = toy.denoise(states.x[:1], states.sigma[:1], side.stages[0].parts[0][0])
    torch.testing.assert_close(states.target[:1], target)
    guided = states.target[0] + 4.0 * (states.other[0] - states.target[0])
    step = states.x[0] + (states.x[0] - guided) / states.sigma[0] * (states.sigma[2] - states.sigma[0])
    torch.testing.assert_close(states.x[2], step)  # two seeds in a batch: the next step is two states on


def test_a_prompt_on_both_sides_is_predicted_once(toy: ToyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Teacher(toy, task("grey", others=("grey",)))
    side = teacher.replaced("grey", PATH)
    once = teacher.run(side, PATH, [1, 2], 2)
    assert toy.denoised == 2 * PATH.steps
    monkeypatch.setattr(Side, "same_as", lambda self, other: False)
    torch.testing.assert_close(once, teacher.run(side, PATH, [1, 2], 2))
    assert toy.denoised == (1 + 2) * 2 * PATH.steps


def test_a_seed_gives_the_same_whatever_the_batch(toy: ToyModel) -> None:
    teacher = Teacher(toy, task("red circle", others=("dull", "grey")))
    side = teacher.replaced("red circle", PATH)
    together = teacher.run(side, PATH, [1, 2, 3, 4, 5], 5)
    torch.testing.assert_close(together, teacher.run(side, PATH, [1, 2, 3, 4, 5], 1))


def test_large_states_go_through_in_smaller_batches(toy: ToyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a picture's two sides, where that is less than the batch; one at least. The toy's have 4x4 cells."""
    for cells, most in ((100, 4), (40, 2), (3, 1)):
        monkeypatch.setattr("embedding_estimate.teaching.sides.CELLS", cells)
        sizes: list[int] = []
        _, side, states = record(Meter(toy, sizes.append), "red circle", (1, 2, 3, 4), batch=4)
        error(side, states, batch=4)
        assert max(sizes) == most


def test_where_memory_runs_out_fewer_states_go_through_at_once(toy: ToyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, side, states = record(toy, "red (circle:1.8)", seeds=range(5), batch=5)
    empty = teacher.replaced("", PATH)
    expected, passes = error(empty, states, 8), []
    denoise = toy.denoise

    def small(x: torch.Tensor, *given: Any) -> torch.Tensor:
        passes.append(len(x))
        if len(x) > 1:
            raise RuntimeError("CUDA out of memory")
        return denoise(x, *given)

    monkeypatch.setattr(toy, "denoise", small)
    assert error(empty, states, 8) == pytest.approx(expected, rel=1e-5)
    again = teacher.record(side, PATH, range(5), 5)
    torch.testing.assert_close(again.x, states.x)
    torch.testing.assert_close(again.target, states.target)
    torch.testing.assert_close(again.other, states.other)
    assert 1 in passes and max(passes) > 1
    monkeypatch.setattr(toy, "denoise", lambda *given: small(torch.zeros(2)))
    with pytest.raises(RuntimeError, match="out of memory"):
        error(empty, states, 8)


def test_other_prompts_are_drawn_in_turn(toy: ToyModel) -> None:
    alone = Teacher(toy, task("ugly", negative=True, others=("cat",)))
    pair = Teacher(toy, task("ugly", negative=True, others=("dog", "cat")))
    odd = pair.run(pair.replaced("ugly", PATH), PATH, [7, 8], 2)[0]
    torch.testing.assert_close(odd, alone.run(alone.replaced("ugly", PATH), PATH, [7], 1)[0])


def test_and_is_composed_on_the_other_side(toy: ToyModel) -> None:
    """u + 0.7 (a - u) + 0.5 (b - u), Liu et al. 2022, eq. 11."""
    _, side, states = record(toy, "red circle :0.7 AND green star :0.5")
    (a, _), (b, _) = side.stages[0].parts
    u = states.other
    expected = (
        u + 0.7 * (toy.denoise(states.x, states.sigma, a) - u) + 0.5 * (toy.denoise(states.x, states.sigma, b) - u)
    )
    torch.testing.assert_close(states.target, expected)
    assert side.composed and not side.weights_sum_to_one


def test_one_part_with_a_weight_is_composed_too(toy: ToyModel) -> None:
    _, side, states = record(toy, "red circle :0.5")
    conditioning, weight = side.stages[0].parts[0]
    assert weight == 0.5 and side.composed
    plain = toy.denoise(states.x, states.sigma, conditioning)
    torch.testing.assert_close(states.target, states.other + 0.5 * (plain - states.other))


def test_a_stage_lasts_up_to_and_with_its_end(toy: ToyModel) -> None:
    _, side, states = record(toy, "[red:green:2] circle")
    assert side.scheduled
    first, second = (stage.parts[0][0] for stage in side.stages)
    for state in states.split(1):
        conditioning = first if int(state.evaluation) <= 2 else second
        torch.testing.assert_close(state.target, toy.denoise(state.x, state.sigma, conditioning))


def test_error_is_zero_for_the_prompt_itself_with_and_and_schedule(toy: ToyModel) -> None:
    for text in ("red circle", "[red:green:3] circle", "red AND [blue:green:2] star :0.4"):
        _, side, states = record(toy, text)
        assert error(side, states, batch=5) < 1e-20  # of rounding, which follows the size of the batch


def test_error_is_the_mean_squared_epsilon(toy: ToyModel) -> None:
    teacher, _, states = record(toy, "red circle")
    other = teacher.replaced("green star", PATH)
    denoised = toy.denoise(states.x, states.sigma, other.stages[0].parts[0][0])
    difference = epsilon(states.x, states.sigma, denoised) - epsilon(states.x, states.sigma, states.target)
    assert abs(error(other, states, batch=3) - float(difference.square().mean())) < 1e-12


def test_the_last_stage_is_used_beyond_its_end(toy: ToyModel) -> None:
    a, b = (toy.encode(text, evaluations=4, width=32, height=32)[0].parts for text in ("red", "green"))
    side = Side(toy, [Stage(1, a), Stage(4, b)])
    assert side.stage(4).parts is b
    assert side.stage(0).parts is a


@pytest.mark.parametrize(
    ("others", "negative", "calls"),
    [(("",), False, 0), (("",), True, 0), (("dull",), False, 12), (("", "dull"), True, 12)],
)
def test_nothing_costs_nothing_where_the_other_side_is_empty(
    toy: ToyModel, others: tuple[str, ...], negative: bool, calls: int
) -> None:
    """Then its predictions stand beside the states."""
    teacher, _, states = record(toy, "red circle", others=others, negative=negative)
    before = toy.denoised
    found = teacher.error_of_nothing(states, PATH, 4)
    assert toy.denoised - before == calls
    assert found == pytest.approx(error(teacher.replaced("", PATH), states, 4), rel=1e-12)


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_what_a_seed_gives_does_not_depend_on_the_others(toy: ToyModel, number: int) -> None:
    teacher = Teacher(toy, task("red", others=("dull", "blue", "star", "big", "small")[:number]))
    side = teacher.replaced("red", PATH)
    together, alone = teacher.run(side, PATH, range(8), 4), teacher.run(side, PATH, range(5, 8), 2)
    torch.testing.assert_close(together[5:], alone)
