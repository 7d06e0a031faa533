"""The U-Net in k-diffusion's form: denoised = D(x; sigma, conditioning), with x = x0 + sigma * noise.

Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", table 1 ("VP" for models that
predict the noise); Salimans & Ho 2022, "Progressive Distillation", section 4, for those that predict v.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from embedding_estimate.hosts.precision import GradientScale
from embedding_estimate.model.host import Conditioning, Prediction

TIME_IDS = 6  # SDXL's conditioning holds original size, crop and target size, two numbers each


class Denoiser:
    """Wraps diffusers' U-Net. It adds no copy of x and no wait for the device."""

    def __init__(self, unet: nn.Module, alphas_cumprod: Tensor, prediction: Prediction):
        """`alphas_cumprod` (T,): the model's discrete noise schedule, from its lowest noise to its highest."""
        parameter = next(unet.parameters())
        self.unet: Any = unet
        self.dtype = parameter.dtype
        self.prediction = prediction
        alphas = alphas_cumprod.cpu().double()
        self.sigmas = ((1 - alphas) / alphas).sqrt().float().to(parameter.device)  # (T,), ascending
        self.log_sigmas = self.sigmas.log()

    def __call__(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Denoises x (B, C, h, w) at sigma (B,), both fp32, with a conditioning of batch 1 or B; returns (B, C, h, w)
        in fp32.

        Differentiable in x and in the conditioning. In fp16 the gradient passes through the U-Net scaled, see
        `GradientScale`.
        """
        batch = len(x)
        scale = GradientScale() if self.dtype == torch.float16 and torch.is_grad_enabled() else None
        x = x if scale is None else scale.leave(x)
        level = sigma.view(-1, 1, 1, 1)
        scaled = x / (level**2 + 1).sqrt()
        context, vector = conditioning.context, conditioning.vector
        if scale is not None:
            context = scale.leave(context)
            vector = None if vector is None else scale.leave(vector)
        output: Tensor = self.unet(
            scaled.to(self.dtype),
            self.timestep(sigma),
            encoder_hidden_states=context.to(self.dtype).expand(batch, -1, -1),
            added_cond_kwargs=None if vector is None else _added(vector.expand(batch, -1)),
            return_dict=False,
        )[0].float()
        if self.prediction == "v":
            denoised = x / (level**2 + 1) - output * (level / (level**2 + 1).sqrt())
        else:
            denoised = x - output * level
        return denoised if scale is None else scale.enter(denoised)

    def timestep(self, sigma: Tensor) -> Tensor:
        """The fractional timesteps (B,) of noise levels (B,): linear in log sigma between the model's own levels."""
        log_sigma = sigma.log()
        above = torch.searchsorted(self.log_sigmas, log_sigma).clamp(1, len(self.sigmas) - 1)
        low, high = self.log_sigmas[above - 1], self.log_sigmas[above]
        return above - 1 + ((log_sigma - low) / (high - low)).clamp(0, 1)


def _added(vector: Tensor) -> dict[str, Tensor]:
    """SDXL's vector (B, P + 6) as diffusers takes it: the pooled text (B, P) and the six sizes (B, 6)."""
    return {"text_embeds": vector[:, :-TIME_IDS], "time_ids": vector[:, -TIME_IDS:]}
