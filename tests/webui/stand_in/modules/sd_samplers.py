from typing import Any

import torch
from k_diffusion.external import CompVisDenoiser
from torch import Tensor

from modules import sd_schedulers


class Sampler:
    def __init__(self, model: Any):
        self.model_wrap = CompVisDenoiser(model)

    def get_sigmas(self, p: Any, steps: int) -> Tensor:
        low, high = float(self.model_wrap.sigmas[0]), float(self.model_wrap.sigmas[-1])
        space = {each.label: each.function for each in sd_schedulers.schedulers}[p.scheduler]
        if space is None:
            return torch.cat([torch.linspace(high, low, steps), torch.zeros(1)])
        return space(n=steps, sigma_min=low, sigma_max=high, device="cpu")


def create_sampler(name: str, model: Any) -> Sampler:
    return Sampler(model)
