from typing import Any

import torch
from torch import Tensor

from modules import sd_schedulers


class ForgeScheduleLinker:
    """Knows the noise levels, and is not called."""

    def __init__(self, predictor: Any):
        self.predictor = predictor

    @property
    def sigmas(self) -> Tensor:
        sigmas: Tensor = self.predictor.sigmas
        return sigmas


class Sampler:
    def __init__(self, model: Any):
        self.model_wrap = ForgeScheduleLinker(model.forge_objects.unet.model.predictor)

    def get_sigmas(self, p: Any, steps: int) -> Tensor:
        low, high = float(self.model_wrap.sigmas[0]), float(self.model_wrap.sigmas[-1])
        space = {scheduler.label: scheduler.function for scheduler in sd_schedulers.schedulers}[p.scheduler]
        assert p.width and p.height and p.sd_model  # Neo's schedule for Flux 2 asks for them
        if space is None:
            return torch.cat([torch.linspace(high, low, steps), torch.zeros(1)])
        levels: Tensor = space(n=steps, sigma_min=low, sigma_max=high, device="cpu")
        return levels


def create_sampler(name: str, model: Any) -> Sampler:
    return Sampler(model)
