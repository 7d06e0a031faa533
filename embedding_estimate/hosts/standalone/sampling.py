"""Samplers under their WebUI names: k-diffusion's own, or diffusers' schedulers in its form x = x0 + sigma * noise.

A diffusers scheduler spaces its steps over the noise levels of a model. Here each scheduler gets a model whose only
levels are those of the chosen sigma schedule, so every sampler works with every schedule, exactly.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from embedding_estimate.errors import SettingsError, nearest, quoted
from embedding_estimate.hosts.standalone import k_samplers
from embedding_estimate.hosts.standalone.sampler_names import SCHEDULE_NAMES
from embedding_estimate.model.host import Denoise

Levels = np.ndarray[Any, np.dtype[Any]]  # (steps,) or (N,), fp64


def karras(sigmas: Levels, steps: int) -> Levels:
    """Even in sigma^(1/7); Karras et al. 2022, "Elucidating the Design Space", equation 5."""
    return np.linspace(sigmas[-1] ** (1 / 7), sigmas[0] ** (1 / 7), steps) ** 7


def exponential(sigmas: Levels, steps: int) -> Levels:
    """Even in log sigma."""
    return np.geomspace(sigmas[-1], sigmas[0], steps)


def uniform(sigmas: Levels, steps: int) -> Levels:
    """Even in the model's own time, its first and last level included."""
    return _at(sigmas, np.linspace(len(sigmas) - 1, 0, steps))


def sgm_uniform(sigmas: Levels, steps: int) -> Levels:
    """Even in the model's own time, the last step ending at its lowest level ("trailing" in diffusers)."""
    return _at(sigmas, np.linspace(len(sigmas) - 1, 0, steps + 1)[:-1])


def ddim(sigmas: Levels, steps: int) -> Levels:
    """Every (N / steps)-th level from the second on ("leading" in diffusers); Song et al. 2021."""
    stride = max(len(sigmas) // steps, 1)
    return _at(sigmas, np.arange(steps)[::-1] * stride + 1)


def beta(sigmas: Levels, steps: int) -> Levels:
    """Levels at the quantiles of Beta(0.6, 0.6); Lee et al. 2024, "Beta Sampling is All You Need"."""
    from scipy.stats import beta as distribution

    quantiles: Levels = distribution.ppf(np.linspace(1, 0, steps), 0.6, 0.6)
    levels: Levels = sigmas[0] + quantiles * (sigmas[-1] - sigmas[0])
    return levels


def _at(sigmas: Levels, times: Levels) -> Levels:
    """The levels at fractional times, interpolated in log sigma as k-diffusion does."""
    levels: Levels = np.exp(np.interp(times, np.arange(len(sigmas)), np.log(sigmas)))
    return levels


SCHEDULES: Mapping[str, Callable[[Levels, int], Levels]] = {
    "Karras": karras,
    "Exponential": exponential,
    "Uniform": uniform,
    "Normal": uniform,
    "SGM Uniform": sgm_uniform,
    "DDIM": ddim,
    "Beta": beta,
}


def _same(sigma: float, following: float) -> float:
    return following


def _middle(sigma: float, following: float) -> float:
    return math.sqrt(sigma * following)


def _middle_of_ancestral_step(sigma: float, following: float) -> float:
    """The second evaluation's level of an ancestral step: the step goes to sigma_down, and fresh noise takes it back up
    to the following level (eta = 1)."""
    sigma_up = following * math.sqrt(1 - (following / sigma) ** 2)
    return math.sqrt(sigma * math.sqrt(following**2 - sigma_up**2))


@dataclass(frozen=True)
class Sampler:
    """How a sampler's name maps to a scheduler of diffusers."""

    scheduler: str  # class name
    automatic: str  # the schedule that the WebUI uses by default
    second: Callable[[float, float], float] | None = None  # level of a step's second evaluation, if it has one
    noise: Literal["none", "generators", "brownian"] = "none"
    variance_preserving: bool = False  # keeps x / sqrt(1 + sigma^2)
    skips_penultimate: bool = False  # drops the last level but one, as k-diffusion's DPM2 wants it
    options: Mapping[str, Any] = field(default_factory=dict)


SAMPLERS: Mapping[str, Sampler] = {
    "DPM++ SDE": Sampler("DPMSolverSDEScheduler", "Karras", _middle, "brownian"),
    "DPM++ 2M": Sampler("DPMSolverMultistepScheduler", "Karras", variance_preserving=True),
    "DPM++ 2M SDE": Sampler(
        "DPMSolverMultistepScheduler",
        "Exponential",
        noise="generators",
        variance_preserving=True,
        options={"algorithm_type": "sde-dpmsolver++"},
    ),
    "Euler": Sampler("EulerDiscreteScheduler", "Uniform", noise="generators"),  # older versions draw without need
    "Euler a": Sampler("EulerAncestralDiscreteScheduler", "Uniform", noise="generators"),
    "Heun": Sampler("HeunDiscreteScheduler", "Uniform", _same),
    "LMS": Sampler("LMSDiscreteScheduler", "Uniform"),
    "DPM2": Sampler("KDPM2DiscreteScheduler", "Karras", _middle, skips_penultimate=True),
    "DPM2 a": Sampler(
        "KDPM2AncestralDiscreteScheduler",
        "Karras",
        _middle_of_ancestral_step,
        "generators",
        skips_penultimate=True,
    ),
    "DDIM": Sampler(
        "DDIMScheduler", "DDIM", variance_preserving=True, options={"clip_sample": False, "set_alpha_to_one": True}
    ),
    "UniPC": Sampler(
        "UniPCMultistepScheduler",
        "Uniform",
        variance_preserving=True,
        options={"solver_order": 3},  # in its form "bh2": the WebUI's "bh1" cannot step to sigma = 0
    ),
}


def evaluations(sampler: str, steps: int) -> int:
    """The number of denoiser evaluations that the WebUI's prompt schedules count: two per step of a second-order
    sampler.

    The last step of such a sampler has only one, so a run makes one less.
    """
    return steps * 2 if _known(sampler).second else steps


def levels(sampler: str, schedule: str, steps: int, sigmas: Tensor) -> list[float]:
    """The schedule's noise levels (steps,), from the highest down, without the final 0.

    `sigmas` (N,) are the model's own levels in ascending order.
    """
    kind = _known(sampler)
    if schedule not in SCHEDULE_NAMES:
        raise SettingsError([f"schedule={quoted(schedule)} is unknown: {nearest(schedule, SCHEDULE_NAMES)}"])
    space = SCHEDULES[kind.automatic if schedule == "Automatic" else schedule]
    own = sigmas.cpu().double().numpy()
    if kind.skips_penultimate:
        return [float(level) for level in space(own, steps + 1)[:-1]]
    return [float(level) for level in space(own, steps)]


@torch.no_grad()
def sample(
    denoise: Denoise,
    *,
    sampler: str,
    schedule: str,
    steps: int,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    sigmas: Tensor,
    device: torch.device,
    k_diffusion: ModuleType | None = None,
) -> Tensor:
    """Latents (S, C, h, w) from the noise of each of S seeds; what one seed gives does not depend on the others.

    `shape` is (C, h, w), `sigmas` (N,) the model's own levels in ascending order. `denoise` is that
    of `host.BorrowedModel.sample`. `k_diffusion` is `k_diffusion.sampling`: its samplers are taken where it has
    them, the others are those of diffusers. The global random state is neither read nor changed.
    """
    kind = _known(sampler)
    steps_at = levels(sampler, schedule, steps, sigmas)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]  # on the CPU: the same on every device
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    x = noise.to(device) * steps_at[0]  # (S, C, h, w)

    function = k_samplers.function(k_diffusion, sampler)
    if function is not None:
        brownian = kind.noise == "brownian"
        unit_noise = _brownian(x, steps_at, seeds) if brownian else _independent(shape, generators, device)
        return k_samplers.sample(function, denoise, x, steps_at, unit_noise)

    scheduler = _scheduler(kind, steps_at)
    options: dict[str, Any] = {"generator": generators} if kind.noise == "generators" else {}
    if kind.noise == "brownian":
        scheduler.noise_sampler = _brownian(x, steps_at, seeds)

    evaluated_at = _evaluated_at(kind, steps_at)
    on_device = torch.tensor(evaluated_at, dtype=torch.float32, device=device)  # (E,)
    state = x / _shrink(kind, evaluated_at[0])
    for evaluation, (time, level) in enumerate(zip(scheduler.timesteps, evaluated_at, strict=True)):
        sigma = on_device[evaluation].expand(len(seeds))  # (S,)
        x = state * _shrink(kind, level)
        denoised = denoise(x, sigma, evaluation)
        epsilon = (x - denoised) / on_device[evaluation]
        state = scheduler.step(epsilon, time, state, **options).prev_sample
    return state  # at sigma = 0, where both forms of the state agree


def _known(sampler: str) -> Sampler:
    if sampler not in SAMPLERS:
        raise SettingsError([f"sampler={quoted(sampler)} is unknown: {nearest(sampler, SAMPLERS)}"])
    return SAMPLERS[sampler]


def _shrink(kind: Sampler, sigma: float) -> float:
    """The factor by which the scheduler's state is smaller than x."""
    return math.sqrt(1 + sigma**2) if kind.variance_preserving else 1.0


def _evaluated_at(kind: Sampler, steps_at: Sequence[float]) -> list[float]:
    """The level of each evaluation. The last step, to 0, always has a single one."""
    if kind.second is None:
        return list(steps_at)
    pairs = pairwise(steps_at)
    return [level for sigma, following in pairs for level in (sigma, kind.second(sigma, following))] + [steps_at[-1]]


def _scheduler(kind: Sampler, steps_at: Sequence[float]) -> Any:
    """A diffusers scheduler whose model has only these levels and which visits each of them."""
    import diffusers

    ascending = torch.tensor(steps_at[::-1], dtype=torch.float64)
    with warnings.catch_warnings():
        # diffusers hands tensors to numpy.array, which recent versions of numpy and torch disagree about
        warnings.filterwarnings("ignore", "__array(_wrap)?__ ", DeprecationWarning)
        scheduler = getattr(diffusers, kind.scheduler)(
            num_train_timesteps=len(steps_at), timestep_spacing="trailing", **kind.options
        )
        scheduler.alphas_cumprod = 1 / (1 + ascending**2)  # set_timesteps derives everything else from it
        scheduler.set_timesteps(len(steps_at))
    if hasattr(scheduler, "set_begin_index"):  # all but DDIM: spares them the search for each step's index
        scheduler.set_begin_index(0)
    if hasattr(scheduler, "is_scale_input_called"):  # the denoiser scales its input, and the scheduler would warn
        scheduler.is_scale_input_called = True
    return scheduler


def _brownian(x: Tensor, steps_at: Sequence[float], seeds: Sequence[int]) -> Callable[..., Tensor]:
    """Brownian motion in sigma, one tree per seed, on the CPU as other noise is. Its range is a little wider than the
    schedule.

    diffusers' own ends exactly at the first level and then exceeds it by a rounding error.
    """
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    tree = BrownianTreeNoiseSampler(x.cpu(), steps_at[-1] * 0.99, steps_at[0] * 1.01, list(seeds))
    return lambda *levels: tree(*(torch.as_tensor(level).cpu() for level in levels)).to(x.device)


def _independent(
    shape: tuple[int, int, int], generators: Sequence[torch.Generator], device: torch.device
) -> Callable[..., Tensor]:
    """Noise (S, C, h, w) that each seed's own generator draws anew for each step."""
    return lambda *levels: torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)
