"""The WebUI's own k-diffusion samplers and sigma schedules, run on a denoiser of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.host import Denoise
from embedding_estimate.hosts.lending import random_states_kept

AUTOMATIC = "Automatic"


def _functions() -> dict[str, tuple[Callable[..., Tensor], Mapping[str, Any]]]:
    """k-diffusion's sampler and the WebUI's options for each name; those that choose their own steps left out."""
    import k_diffusion.sampling
    from modules import sd_samplers_kdiffusion

    found = {}
    for name, function, _aliases, options in sd_samplers_kdiffusion.samplers_k_diffusion:
        function = function if callable(function) else getattr(k_diffusion.sampling, function, None)
        if function is not None and "sigmas" in inspect.signature(function).parameters:
            found[name] = function, options
    return found


def sampler_names() -> Sequence[str]:
    return tuple(_functions())


def schedule_names() -> Sequence[str]:
    """A WebUI before 1.9 knows schedules only by its samplers' names; these three it can do all the same."""
    known = _schedulers()
    return (AUTOMATIC, "Karras", "Exponential") if known is None else tuple(each.label for each in known)


class Samplers:
    """Samples from a loaded model."""

    def __init__(self, model: Any):
        from modules import sd_samplers

        self._model = model
        self._create = sd_samplers.create_sampler
        self._functions = _functions()

    @property
    def denoiser(self) -> Any:
        """k-diffusion's wrapper of the loaded model, as the WebUI makes it for its samplers."""
        return self._create("Euler", self._model).model_wrap

    def evaluations(self, sampler: str, steps: int) -> int:
        """The count that prompt schedules are read with; older WebUIs count one to a step for every sampler."""
        return steps * 2 if self._functions[sampler][1].get("second_order", False) else steps

    def sigmas(self, sampler: str, schedule: str, steps: int) -> Tensor:
        """Noise levels (steps + 1,), the last one 0, by the WebUI's own rules and options."""
        owner = self._create(sampler, self._model)
        space = None
        if _schedulers() is None and schedule != AUTOMATIC:
            space = _space(schedule, owner.model_wrap.sigmas)
        asked = SimpleNamespace(
            sampler_noise_scheduler_override=space,
            scheduler=schedule,
            is_hr_pass=False,
            extra_generation_params={},
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
        callback: Callable[[Tensor, Tensor, Tensor, int], None] | None,
    ) -> Tensor:
        """Latents (S, C, h, w). Noise comes from each seed's own generator, so a seed's result stands alone."""
        from modules import shared

        function, options = self._functions[sampler]
        sigmas = self.sigmas(sampler, schedule, steps).to(device)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def noise(*_: Any) -> Tensor:
            return torch.stack([torch.randn(shape, generator=each) for each in generators]).to(device)

        evaluation = -1

        def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
            nonlocal evaluation
            evaluation += 1
            denoised = denoise(x, sigma, evaluation)
            if callback is not None:
                callback(x, sigma, denoised, evaluation)
            return denoised

        first = (1 + sigmas[0] ** 2).sqrt() if getattr(shared.opts, "sgm_noise_multiplier", False) else sigmas[0]
        more = _arguments(function, options, noise)
        with _plain_torch(), random_states_kept(device):  # some draw noise that they do not use
            x = noise() * first  # (S, C, h, w)
            if options.get("brownian_noise") or function.__name__ == "sample_dpmpp_sde":
                more["noise_sampler"] = _brownian(x, sigmas, seeds)
            return function(model, x, sigmas=sigmas, extra_args={}, disable=True, **more)


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
    from k_diffusion.sampling import BrownianTreeNoiseSampler

    return BrownianTreeNoiseSampler(x, sigmas[sigmas > 0].min(), sigmas.max(), seed=list(seeds))


@contextmanager
def _plain_torch() -> Iterator[None]:
    """The WebUI leaves a stand-in for torch in k-diffusion, which draws noise for its last image."""
    import k_diffusion.sampling

    before = k_diffusion.sampling.torch
    k_diffusion.sampling.torch = torch
    try:
        yield
    finally:
        k_diffusion.sampling.torch = before


def _schedulers() -> Sequence[Any] | None:
    """None before WebUI 1.9."""
    try:
        from modules import sd_schedulers
    except ImportError:
        return None
    found: Sequence[Any] = sd_schedulers.schedulers
    return found


def _space(schedule: str, sigmas: Tensor) -> Callable[[int], Tensor]:
    from k_diffusion.sampling import get_sigmas_exponential, get_sigmas_karras

    spaced = {"Karras": get_sigmas_karras, "Exponential": get_sigmas_exponential}[schedule]
    return lambda steps: spaced(n=steps, sigma_min=float(sigmas[0]), sigma_max=float(sigmas[-1]), device=sigmas.device)
