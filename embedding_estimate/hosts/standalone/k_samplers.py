"""Samplers of the package k-diffusion, which WebUIs use. They are used if the package is installed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.hosts.lending import random_states_kept
from embedding_estimate.model.host import Denoise

logger = logging.getLogger(__name__)

FUNCTIONS = {
    "DPM++ SDE": "sample_dpmpp_sde",
    "DPM++ 2M": "sample_dpmpp_2m",
    "DPM++ 2M SDE": "sample_dpmpp_2m_sde",
    "Euler": "sample_euler",
    "Euler a": "sample_euler_ancestral",
    "Heun": "sample_heun",
    "LMS": "sample_lms",
    "DPM2": "sample_dpm_2",
    "DPM2 a": "sample_dpm_2_ancestral",
}
"""In `k_diffusion.sampling`, by the WebUI's name; it has neither DDIM nor UniPC."""


def installed() -> ModuleType | None:
    """`k_diffusion.sampling`; None if the package is missing, or a library that it needs does not load."""
    try:
        return import_module("k_diffusion.sampling")
    except (ImportError, OSError, RuntimeError) as error:  # OSError and RuntimeError: compiled libraries of its own
        if getattr(error, "name", None) != "k_diffusion":
            logger.warning("k-diffusion does not load, so diffusers draws the latents: %s", error)
        return None


def function(k_diffusion: ModuleType | None, sampler: str) -> Callable[..., Tensor] | None:
    """k-diffusion's function for a sampler; None if it has none, as early versions do."""
    function: Callable[..., Tensor] | None = getattr(k_diffusion, FUNCTIONS.get(sampler, ""), None)
    return function


def sample(
    function: Callable[..., Tensor],
    denoise: Denoise,
    x: Tensor,
    levels: Sequence[float],
    noise: Callable[..., Tensor],
) -> Tensor:
    """Latents (S, C, h, w) from x at the first of the noise levels (steps,), which end before 0.

    `noise` gives the unit noise (S, C, h, w) of a step between two levels, to samplers that draw. `denoise` is
    that of `host.BorrowedModel.sample`. The global random state is neither read nor changed.
    """
    evaluation = -1

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal evaluation
        evaluation += 1
        return denoise(x, sigma, evaluation)

    options: dict[str, Any] = {"extra_args": {}, "disable": True}  # no bar
    if "noise_sampler" in inspect.signature(function).parameters:
        options["noise_sampler"] = noise
    with random_states_kept(x.device):  # some draw without need
        return function(model, x, torch.tensor([*levels, 0.0], device=x.device), **options)
