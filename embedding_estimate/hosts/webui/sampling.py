"""The WebUI's own k-diffusion samplers and sigma schedules, run on a denoiser of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.hosts.lending import random_states_kept
from embedding_estimate.hosts.webui.replacing import replaced
from embedding_estimate.hosts.webui.support import LATENT_SCALE
from embedding_estimate.model.host import Denoise

AUTOMATIC = "Automatic"
SECOND_ORDER = {"k_dpmpp_2s_a", "k_dpmpp_2s_a_ka", "k_dpmpp_sde", "k_dpmpp_sde_ka", "k_dpm_2", "k_dpm_2_a", "k_heun"}
"""By alias, the samplers that an early WebUI counts twice, which do not say so themselves."""


def _k_diffusion() -> Any:
    """The sampling module of k-diffusion; reForge has several and chooses one."""
    from modules import sd_samplers_kdiffusion

    return getattr(sd_samplers_kdiffusion, "sampling", None) or import_module("k_diffusion.sampling")


def _functions() -> dict[str, tuple[Callable[..., Tensor], Mapping[str, Any]]]:
    """k-diffusion's sampler and the WebUI's options for each name.

    Those that choose their own steps are left out, and Neo's for rectified flow, which makes NaN of other models.
    """
    from modules import sd_samplers_kdiffusion

    known = _k_diffusion()
    functions: dict[str, tuple[Callable[..., Tensor], Mapping[str, Any]]] = {}
    for name, function, aliases, options in sd_samplers_kdiffusion.samplers_k_diffusion:
        function = function if callable(function) else getattr(known, function, None)
        if function is None or function.__name__.endswith("_RF"):
            continue
        if "sigmas" in inspect.signature(function).parameters:
            functions[name] = function, {"second_order": aliases[0] in SECOND_ORDER, **options}
    return functions


def sampler_names() -> Sequence[str]:
    """The WebUI's k-diffusion samplers, by the names that its page has."""
    return tuple(_functions())


def schedule_names() -> Sequence[str]:
    """A WebUI before 1.9 knows schedules only by its samplers' names; these three it can do all the same."""
    known = _schedulers()
    return (AUTOMATIC, "Karras", "Exponential") if known is None else tuple(scheduler.label for scheduler in known)


class Samplers:
    """Samples from a loaded model."""

    def __init__(self, model: Any, inner_model: Any):
        """`inner_model` is what some samplers ask the denoiser for under this name."""
        from modules import sd_samplers

        self._model = model
        self._inner_model = inner_model
        self._create = sd_samplers.create_sampler
        self._functions = _functions()

    def evaluations(self, sampler: str, steps: int) -> int:
        """The count that prompt schedules are read with."""
        from modules import shared

        once = getattr(shared.opts, "dont_fix_second_order_samplers_schedule", False)  # an early WebUI's setting
        return steps * 2 if self._functions[sampler][1]["second_order"] and not once else steps

    def sigmas(self, sampler: str, schedule: str, steps: int, side: tuple[int, int]) -> Tensor:
        """Noise levels (steps + 1,), the last one 0, by the WebUI's own rules and options.

        `side` is the image's height and width in pixels, on which a schedule of Forge Neo's depends.
        """
        owner = self._create(sampler, self._model)
        space = None
        if _schedulers() is None and schedule != AUTOMATIC:
            space = _space(schedule, owner.model_wrap.sigmas)
        asked = SimpleNamespace(
            sampler_noise_scheduler_override=space,
            scheduler=schedule,
            is_hr_pass=False,
            extra_generation_params={},
            sd_model=self._model,
            height=side[0],
            width=side[1],
        )
        levels: Tensor = owner.get_sigmas(asked, steps)
        return levels

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        *,
        sampler: str,
        schedule: str,
        steps: int,
        seeds: Sequence[int],
        shape: tuple[int, int, int],
        device: torch.device,
    ) -> Tensor:
        """Latents (S, C, h, w). Noise comes from each seed's own generator, so a seed's result stands alone."""
        from modules import shared

        function, options = self._functions[sampler]
        sigmas = self.sigmas(sampler, schedule, steps, (LATENT_SCALE * shape[1], LATENT_SCALE * shape[2])).to(device)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def noise(*_: Any) -> Tensor:
            return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

        model = _Denoiser(denoise, self._inner_model)
        first = (1 + sigmas[0] ** 2).sqrt() if getattr(shared.opts, "sgm_noise_multiplier", False) else sigmas[0]
        more = _arguments(function, options, noise)
        seeded = replaced(_k_diffusion(), "torch", _Seeded(noise))  # the WebUI's there draws its last image's noise
        with seeded, random_states_kept(device):
            x = noise() * first  # (S, C, h, w)
            if options.get("brownian_noise") or function.__name__ == "sample_dpmpp_sde":
                more["noise_sampler"] = _brownian(x, sigmas, seeds)
            return function(model, x, sigmas=sigmas, extra_args={}, disable=True, **more)


class _Denoiser:
    """What a sampler calls at each evaluation; some ask it for its `inner_model`."""

    def __init__(self, denoise: Denoise, inner_model: Any):
        self._denoise = denoise
        self._evaluation = -1
        self.inner_model = inner_model

    def __call__(self, x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        self._evaluation += 1
        return self._denoise(x, sigma, self._evaluation)


class _Seeded:
    """torch for samplers that draw their noise from it and take no `noise_sampler`."""

    def __init__(self, noise: Callable[..., Tensor]):
        self.randn_like = noise

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _arguments(
    function: Callable[..., Tensor], options: Mapping[str, Any], noise: Callable[..., Tensor]
) -> dict[str, Any]:
    """What the WebUI passes on from its options, and where the noise comes from."""
    from modules import shared

    taken = inspect.signature(function).parameters
    known = {"noise_sampler": noise, "eta": shared.opts.eta_ancestral, "solver_type": options.get("solver_type")}
    return {name: value for name, value in known.items() if name in taken and value is not None}


def _brownian(x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> Any:
    """Brownian motion over the noise levels, one tree to a seed."""
    return _k_diffusion().BrownianTreeNoiseSampler(x, sigmas[sigmas > 0].min(), sigmas.max(), seed=list(seeds))


def _schedulers() -> Sequence[Any] | None:
    """None before WebUI 1.9."""
    try:
        from modules import sd_schedulers
    except ImportError:
        return None
    schedulers: Sequence[Any] = sd_schedulers.schedulers
    return schedulers


def _space(schedule: str, sigmas: Tensor) -> Callable[[int], Tensor]:
    known = _k_diffusion()
    spaced = {"Karras": known.get_sigmas_karras, "Exponential": known.get_sigmas_exponential}[schedule]
    return lambda steps: spaced(n=steps, sigma_min=float(sigmas[0]), sigma_max=float(sigmas[-1]), device=sigmas.device)
