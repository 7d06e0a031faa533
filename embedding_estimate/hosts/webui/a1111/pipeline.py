"""AUTOMATIC1111's model: an LDM or sgm network, called through the WebUI's k-diffusion wrapper."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embedding_estimate.hosts.webui.turns import queued


class LdmPipeline:
    """`kind.Pipeline`."""

    books: tuple[str, ...] = ("network_", "lora_")  # of the WebUI's LoRA
    computes_in = None

    def __init__(self, model: Any):
        self._model = model
        self.modules: Sequence[nn.Module] = [model]

    @property
    def unet(self) -> nn.Module:
        """`kind.Pipeline.unet`."""
        unet: nn.Module = self._model.model.diffusion_model
        return unet

    @functools.cached_property
    def inner_model(self) -> Any:
        """`kind.Pipeline.inner_model`: k-diffusion's wrapper, as the WebUI makes it for its samplers."""
        from modules import sd_samplers

        return sd_samplers.create_sampler("Euler", self._model).model_wrap

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """`kind.Pipeline.loaded`. The settings page's buttons that move the model wait for the end of the job."""
        from modules import lowvram

        with ExitStack() as stack:
            stack.enter_context(queued(self._model, "to"))
            stack.enter_context(queued(lowvram, "send_everything_to_cpu"))  # under --medvram, also a VAE that decodes
            api = sys.modules.get("modules.api.api")
            if hasattr(api, "unload_model_weights"):  # before 1.6 it keeps the function itself
                stack.enter_context(queued(api, "unload_model_weights"))
            stack.enter_context(self._together())
            yield

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Within, text encoders and U-Net are on the device together.

        Under --medvram the WebUI's hooks move out the one when the other runs, and a backward pass goes through
        both. The VAE comes and goes as ever.
        """
        from modules import devices

        parts = [self._model.model, getattr(self._model, "conditioner", None) or self._model.cond_stage_model]
        tables = [module._forward_pre_hooks for part in parts for module in part.modules()]
        if not any(_moves(hook) for table in tables for hook in table.values()):
            yield
            return
        from modules import lowvram

        held = [table.copy() for table in tables]
        before = lowvram.module_in_gpu
        lowvram.send_everything_to_cpu()
        try:
            for table in tables:
                for key in [key for key, hook in table.items() if _moves(hook)]:
                    del table[key]
            for part in parts:
                part.to(devices.device)
            yield
        finally:
            lowvram.send_everything_to_cpu()
            for part in parts:
                part.to(lowvram.cpu)
            for table, hooks in zip(tables, held, strict=True):
                table.clear()
                table.update(hooks)
            if before is not None:
                before.to(devices.device)
                lowvram.module_in_gpu = before

    @contextmanager
    def set_up(self) -> Iterator[None]:
        """`kind.Pipeline.set_up`: zero terminal SNR and the like, and token merging, which replaces classes.

        Early WebUIs have none of these.
        """
        from modules import sd_models, shared

        if hasattr(self._model, "alphas_cumprod_original"):
            sd_models.apply_alpha_schedule_override(self._model)
        ratio = getattr(shared.opts, "token_merging_ratio", 0)
        if not ratio:
            yield
            return
        sd_models.apply_token_merging(self._model, ratio)
        try:
            yield
        finally:
            sd_models.apply_token_merging(self._model, 0)

    def notes(self) -> Sequence[str]:
        """`kind.Pipeline.notes`: none."""
        return ()

    def denoise(self, x: Tensor, sigma: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
        """`kind.Pipeline.denoise`, by k-diffusion's wrapper of the model."""
        cond: dict[str, Any] = {"c_concat": [x.new_zeros(len(x), 5, 1, 1)]}  # read by models we refuse only
        cond |= {"c_crossattn": [context]} if vector is None else {"crossattn": context, "vector": vector}
        denoised: Tensor = self.inner_model(x, sigma, cond=cond)
        return denoised

    def contexts(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """`kind.Pipeline.contexts`: hypernetworks work on it."""
        from modules import shared

        if not shared.loaded_hypernetworks:
            return context, context
        from modules.hypernetworks.hypernetwork import apply_hypernetworks

        for_keys, for_values = apply_hypernetworks(shared.loaded_hypernetworks, context)
        return for_keys, for_values

    def decode(self, latents: Tensor) -> list[Tensor]:
        """`kind.Pipeline.decode`.

        Where the VAE leaves the range of half precision it is lifted to fp32, as the WebUI does, and put back.
        """
        vae = self._model.first_stage_model
        own = next(vae.parameters()).dtype
        pictures = self._decoded(latents)
        if own == torch.float32 or not any(bool(picture.isnan().any()) for picture in pictures):
            return pictures
        vae.to(torch.float32)
        try:
            return self._decoded(latents)
        finally:
            vae.to(own)

    def _decoded(self, latents: Tensor) -> list[Tensor]:
        from modules import devices

        latents = latents.to(next(self._model.first_stage_model.parameters()).dtype)
        with devices.without_autocast():
            return [self._model.decode_first_stage(latent).float().cpu() for latent in torch.split(latents, 1)]


def _moves(hook: Any) -> bool:
    """Whether a hook is one of those that move a part of the model in and another one out."""
    return getattr(hook, "__module__", "") == "modules.lowvram"
