"""The scheme that estimates are compared with, against its formulas."""

import itertools
import math

import pytest
import torch
from shaking import shaken
from torch import Tensor
from toy import ToyModel

from benchmarks import reference
from benchmarks.reference import Reference, guided, sde_step
from embedding_estimate.teaching.teacher import Task, Teacher

pytestmark = pytest.mark.tools


def task(text: str = "red (circle:1.8)", *, negative: bool = False) -> Task:
    return Task(text, negative, ("dull",), 32, 32)


def noise(count: int) -> Tensor:
    return torch.randn(count, 1, 4, 4, 4, generator=torch.Generator().manual_seed(shaken(0)), dtype=torch.float64)


def toy_denoised(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
    return torch.tanh(x) / (1 + sigma.view(-1, 1, 1, 1)) + evaluation


def test_a_step_is_the_one_of_the_paper() -> None:
    """DPM-Solver++ (Lu et al. 2022) in the time t = -log sigma, with Euler's ancestral split of each half-step.

    To s = sigma(t + h/2): up = s sqrt(1 - s^2 / sigma^2), down^2 = s^2 - up^2, t_down = -log down,
    x_s = exp(t - t_down) x - (exp(t - t_down) - 1) D + up z; the whole step likewise, with D taken at x_s.
    """
    sigma, following = 7.0, 2.0
    x, z = 7 * noise(1)[0], noise(2)
    t, t_next = -math.log(sigma), -math.log(following)
    middle = math.exp(-(t + (t_next - t) / 2))

    def half(target: float, denoised: Tensor, z: Tensor) -> Tensor:
        up = math.sqrt(target**2 * (sigma**2 - target**2) / sigma**2)
        t_down = -0.5 * math.log(target**2 - up**2)
        return math.exp(t - t_down) * x - math.expm1(t - t_down) * denoised + up * z

    first = half(middle, toy_denoised(x, torch.tensor([sigma]), 6), z[0])
    second = half(following, toy_denoised(first, torch.tensor([middle]), 7), z[1])
    assert torch.allclose(sde_step(toy_denoised, x, sigma, following, z, 6), second, rtol=1e-6)


def test_the_last_step_is_the_denoised_latent() -> None:
    x = noise(1)[0]
    expected = toy_denoised(x, torch.tensor([0.5]), 38)
    assert torch.equal(sde_step(toy_denoised, x, 0.5, 0.0, noise(2), 38), expected)


@pytest.mark.parametrize("uncond", ["dull", "one two three four five six"])
def test_guidance_extrapolates_from_the_other_side(toy: ToyModel, uncond: str) -> None:
    """u + 7 (c - u), in one batch or, where one side has more chunks, in two; here with AND: two c, weighted."""
    teacher = Teacher(toy, task())
    mine = teacher.replaced("red circle AND star :0.5", reference.TRAJECTORY)
    other = teacher.side(uncond, reference.TRAJECTORY, negative=True)
    x, sigma = noise(1)[0], torch.tensor([3.0], dtype=torch.float64)
    u = other.denoise(x, sigma, 0)
    c, half = (toy.denoise(x, sigma, conditioning) for conditioning, _ in mine.stage(0).parts)
    expected = u + 7 * ((c - u) + 0.5 * (half - u))
    assert torch.allclose(guided(mine, other, 7.0)(x, sigma, 0), expected)


@pytest.mark.parametrize("negative", [False, True])
def test_vectors_that_are_the_prompt_have_no_loss(toy: ToyModel, negative: bool) -> None:
    scheme = Reference(toy, task("red circle", negative=negative), seed=0)
    plain = toy.token_vectors("red circle")
    loss, target = scheme.loss(plain, scheme.others[0], noise(1)[0], 3, noise(2))
    assert float(loss) == pytest.approx(0, abs=1e-20)
    assert target.shape == (1, 4, 4, 4)
    assert float(scheme.loss(toy.token_vectors("star cat"), scheme.others[0], noise(1)[0], 3, noise(2))[0]) > 1e-6


def test_it_starts_from_unit_noise_and_walks_on_the_prompts_latents(
    toy: ToyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = Reference(toy, task(), seed=0)
    assert scheme.sigmas[0] == pytest.approx(10) and scheme.sigmas[-1] == 0 and len(scheme.sigmas) == 21
    seen = []
    loss = Reference.loss

    def spy(self: Reference, vectors, other, x: Tensor, index: int, z: Tensor):
        result = loss(self, vectors, other, x, index, z)
        seen.append((index, x, result[1]))
        return result

    monkeypatch.setattr(Reference, "loss", spy)
    list(itertools.islice(scheme.learn(toy.token_vectors("red circle"), 0.01), 41))
    assert [index for index, _, _ in seen] == [*range(20), *range(20), 0]
    assert all(seen[i][2] is seen[i + 1][1] for i in range(19))
    starts = torch.stack([seen[0][1], seen[20][1], seen[40][1]])
    assert float(starts.std()) == pytest.approx(1, abs=0.15)
    assert not torch.equal(starts[0], starts[1])


def test_it_learns_and_gives_up_on_what_is_not_finite(toy: ToyModel) -> None:
    scheme = Reference(toy, task(), seed=0)
    start = toy.token_vectors("star cat")

    def distance(vectors) -> float:
        return scheme.loss(vectors, scheme.others[0], noise(1)[0], 0, noise(2))[0].item()

    *_, learned = itertools.islice(scheme.learn(start, 0.01), 60)
    assert distance(learned) < 0.7 * distance(start)
    assert list(scheme.learn({"clip_l": start["clip_l"] * math.nan}, 0.01)) == []
