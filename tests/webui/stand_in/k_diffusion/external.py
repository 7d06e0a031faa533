from typing import Any

from torch import Tensor


class CompVisDenoiser:
    """D(x) = x - sigma * eps(x / sqrt(1 + sigma^2)), or what predicts v instead."""

    def __init__(self, model: Any):
        self.inner_model = model
        self.sigmas: Tensor = ((1 - model.alphas_cumprod) / model.alphas_cumprod).sqrt()  # (T,)

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        level = sigma.view(-1, 1, 1, 1)
        time = (sigma.log()[:, None] - self.sigmas.log()).abs().argmin(dim=1)  # (B,)
        output = self.inner_model.apply_model(x / (1 + level**2).sqrt(), time, cond)
        if self.inner_model.parameterization == "v":
            return x / (level**2 + 1) - output * level / (level**2 + 1).sqrt()
        return x - level * output
