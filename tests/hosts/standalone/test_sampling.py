from __future__ import annotations

import importlib.util
import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the standalone host needs the package's 'app' extra")

import torch
from torch import Tensor

from embedding_estimate.errors import SettingsError
from embedding_estimate.hosts.standalone import sampling
from embedding_estimate.hosts.standalone.k_samplers import FUNCTIONS
from embedding_estimate.hosts.standalone.sampler_names import SAMPLER_NAMES, SCHEDULE_NAMES
from embedding_estimate.hosts.standalone.sampling import SAMPLERS, SCHEDULES, evaluations, levels

SHAPE = (4, 8, 8)
MEAN, SPREAD = 0.7, 0.5
STOCHASTIC = ("DPM++ SDE", "DPM++ 2M SDE", "Euler a", "DPM2 a")
DETERMINISTIC = [name for name in SAMPLER_NAMES if name not in STOCHASTIC]
SECOND_ORDER = ("DPM++ SDE", "Heun", "DPM2", "DPM2 a")


def test_their_names_are_known_without_them() -> None:
    assert tuple(SAMPLERS) == SAMPLER_NAMES and ("Automatic", *SCHEDULES) == SCHEDULE_NAMES


def model_sigmas() -> Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas_cumprod = torch.cumprod(1 - betas, 0)
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


def gaussian(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
    """The exact denoiser of data ~ N(MEAN, SPREAD^2): the posterior mean given x = x0 + sigma * noise."""
    variance = sigma.view(-1, 1, 1, 1) ** 2
    return (x * SPREAD**2 + MEAN * variance) / (SPREAD**2 + variance)


def coupled(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
    """A denoiser without a closed solution, whose pixels depend on each other."""
    variance = sigma.view(-1, 1, 1, 1) ** 2
    return 1.3 * torch.tanh((x / 4 + 0.7 * variance) / (0.25 + variance)) + 0.05 * x.roll(1, -1) / (1 + variance)


def run(
    sampler: str,
    denoise: Callable[[Tensor, Tensor, int], Tensor] = coupled,
    *,
    schedule: str = "Karras",
    steps: int = 10,
    seeds: tuple[int, ...] = (1, 2),
) -> Tensor:
    return sampling.sample(
        denoise,
        sampler=sampler,
        schedule=schedule,
        steps=steps,
        seeds=seeds,
        shape=SHAPE,
        sigmas=model_sigmas(),
        device=torch.device("cpu"),
    )


def trajectory(
    sampler: str, denoise: Callable[[Tensor, Tensor, int], Tensor] = coupled, **options: Any
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """(states, sigmas of shape (S,), result)"""
    states, sigmas = [], []

    def kept(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
        assert evaluation == len(states)
        states.append(x.clone())
        sigmas.append(sigma.clone())
        return denoise(x, sigma, evaluation)

    result = run(sampler, denoise=kept, **options)
    return states, sigmas, result


def unit_noise(seeds: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def test_karras_levels() -> None:
    """Karras et al. 2022, equation 5, with rho = 7, between the model's first and last level."""
    sigmas = model_sigmas()
    low, high = float(sigmas[0]) ** (1 / 7), float(sigmas[-1]) ** (1 / 7)
    expected = [(high + i / 9 * (low - high)) ** 7 for i in range(10)]
    assert levels("Euler", "Karras", 10, sigmas) == pytest.approx(expected)
    assert (expected[0], expected[-1]) == pytest.approx((14.6146, 0.02917), rel=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_every_schedule_descends_within_the_models_levels(schedule: str, steps: int) -> None:
    sigmas = model_sigmas()
    for sampler in SAMPLER_NAMES:
        found = levels(sampler, schedule, steps, sigmas)
        assert len(found) == steps
        assert all(a > b for a, b in pairwise(found))
        assert float(sigmas[0]) * 0.999999 <= found[-1] <= found[0] <= float(sigmas[-1]) * 1.000001


def test_automatic_is_the_webuis_choice() -> None:
    sigmas = model_sigmas()
    for sampler, schedule in [("DPM++ SDE", "Karras"), ("DPM++ 2M SDE", "Exponential"), ("Euler", "Uniform")]:
        assert levels(sampler, "Automatic", 9, sigmas) == levels(sampler, schedule, 9, sigmas)


def test_uniform_is_even_in_the_models_time() -> None:
    sigmas = model_sigmas()
    assert levels("Euler", "Uniform", 4, sigmas) == pytest.approx([float(sigmas[t]) for t in (999, 666, 333, 0)])
    assert levels("Euler", "SGM Uniform", 3, sigmas) == pytest.approx([float(sigmas[t]) for t in (999, 666, 333)])
    assert levels("DDIM", "DDIM", 4, sigmas) == pytest.approx([float(sigmas[t]) for t in (751, 501, 251, 1)])


def test_euler_is_the_loop_of_the_paper() -> None:
    """Karras et al. 2022, algorithm 1 without the second-order correction: dx = (x - D) / sigma dsigma."""
    at = [*levels("Euler", "Karras", 12, model_sigmas()), 0.0]
    x, expected = unit_noise((1, 2)) * at[0], []
    for sigma, following in pairwise(at):
        expected.append(x)
        denoised = coupled(x, torch.full((2,), sigma), 0)
        x = x + (x - denoised) / sigma * (following - sigma)
    states, sigmas, result = trajectory("Euler", steps=12)
    torch.testing.assert_close(torch.stack(states), torch.stack(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result, x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.stack(sigmas), torch.tensor(at[:-1])[:, None].expand(-1, 2))


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_starts_from_sigma_max_times_unit_noise_and_counts_its_evaluations(sampler: str) -> None:
    states, sigmas, result = trajectory(sampler, steps=6)
    torch.testing.assert_close(states[0], unit_noise((1, 2)) * sigmas[0].view(-1, 1, 1, 1), rtol=1e-6, atol=1e-5)
    second = sampler in SECOND_ORDER
    assert evaluations(sampler, 6) == (12 if second else 6)
    assert len(states) == (11 if second else 6)  # the last step, to 0, is a single one
    assert result.shape == (2, *SHAPE) and result.dtype == torch.float32
    assert all(float(sigma[0]) > 0 for sigma in sigmas)


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_follows_the_probability_flow_of_a_gaussian(sampler: str) -> None:
    """There (x - MEAN) / sqrt(SPREAD^2 + sigma^2) is constant along every trajectory."""
    states, sigmas, result = trajectory(sampler, denoise=gaussian, steps=100)
    start = (states[0] - MEAN) / math.sqrt(SPREAD**2 + float(sigmas[0][0]) ** 2)
    first_order = sampler in ("Euler", "DDIM")
    torch.testing.assert_close(result, MEAN + SPREAD * start, rtol=0, atol=0.05 if first_order else 0.006)
    if sampler not in SECOND_ORDER:  # whose states between the steps are only first order
        for x, sigma in zip(states, sigmas, strict=True):
            scale = math.sqrt(SPREAD**2 + float(sigma[0]) ** 2)
            torch.testing.assert_close((x - MEAN) / scale, start, rtol=0, atol=0.1 if first_order else 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_stochastic_samplers_end_at_the_data(sampler: str) -> None:
    result = run(sampler, gaussian, steps=40, seeds=tuple(range(12)))  # 3072 numbers
    assert float(result.mean()) == pytest.approx(MEAN, abs=4 * SPREAD / math.sqrt(3072))
    assert float(result.std()) == pytest.approx(SPREAD, rel=0.13 if sampler == "Euler a" else 0.06)
    apart = torch.corrcoef(result.flatten(1)) - torch.eye(12)
    assert float(apart.abs().max()) < 0.35  # no noise is shared: 256 numbers each, 66 pairs


@pytest.mark.parametrize(
    ("sampler", "order"),
    [("Euler", 1), ("DDIM", 1), ("Heun", 2), ("DPM2", 2), ("DPM++ 2M", 2), ("UniPC", 2), ("LMS", 2)],
)
def test_order_of_convergence(sampler: str, order: int) -> None:
    """Twice the steps: at least 2^order times less error, up to the inaccuracy of measuring it.

    Judged at the last level above 0: the final step replaces x by D(x), of whatever order the sampler is.
    """

    def error(steps: int) -> float:
        states, sigmas, _ = trajectory(sampler, denoise=gaussian, steps=steps)
        spread = [math.sqrt(SPREAD**2 + float(sigmas[i][0]) ** 2) for i in (0, -1)]
        return float((states[-1] - MEAN - (states[0] - MEAN) * spread[1] / spread[0]).square().mean().sqrt())

    assert error(16) / error(32) > 0.75 * 2**order


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_a_seed_does_not_see_its_neighbours(sampler: str) -> None:
    together = run(sampler, seeds=(3, 4, 5))
    torch.testing.assert_close(run(sampler, seeds=(4,)), together[1:2])  # rounding may follow the size of the batch
    torch.testing.assert_close(run(sampler, seeds=(5, 3)), together[[2, 0]])
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_the_global_random_state_is_neither_read_nor_changed(sampler: str) -> None:
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = run(sampler)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])
    torch.manual_seed(1)
    torch.testing.assert_close(run(sampler), first, rtol=0, atol=0)


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
@pytest.mark.parametrize("steps", [1, 2])
def test_very_few_steps(sampler: str, steps: int) -> None:
    assert torch.isfinite(run(sampler, steps=steps)).all()


def test_unknown_names() -> None:
    with pytest.raises(SettingsError, match=r"sampler='Eular' is unknown: did you mean Euler"):
        run("Eular")
    with pytest.raises(SettingsError, match="schedule='Karas' is unknown: did you mean Karras"):
        run("Euler", schedule="Karas")


@pytest.mark.skipif(
    importlib.util.find_spec("k_diffusion") is None,
    reason="k-diffusion is not installed: pip install -e '.[k-diffusion]'",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what importing it drags in
@pytest.mark.parametrize("sampler", FUNCTIONS)
def test_the_trajectory_is_k_diffusions(sampler: str) -> None:
    reference = importlib.import_module("k_diffusion.sampling")
    states, sigmas, result = trajectory(sampler, steps=12)
    at = levels(sampler, "Karras", 12, model_sigmas())
    options: dict[str, Any] = {}
    if sampler == "DPM++ SDE":
        options["noise_sampler"] = reference.BrownianTreeNoiseSampler(states[0], at[-1] * 0.99, at[0] * 1.01, [1, 2])
    elif sampler in STOCHASTIC:
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        for generator in generators:
            torch.randn(SHAPE, generator=generator)  # the initial noise
        options["noise_sampler"] = lambda *_: torch.stack([torch.randn(SHAPE, generator=g) for g in generators])
    theirs: list[tuple[Tensor, Tensor]] = []

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        theirs.append((x, sigma))
        return coupled(x, sigma, 0)

    sample = getattr(reference, FUNCTIONS[sampler])
    end = sample(model, states[0].clone(), torch.tensor([*at, 0.0]), disable=True, **options)
    assert len(theirs) == len(states)
    torch.testing.assert_close(torch.stack(sigmas), torch.stack([sigma for _, sigma in theirs]), rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.stack(states), torch.stack([x for x, _ in theirs]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(result, end, rtol=1e-4, atol=1e-4)
