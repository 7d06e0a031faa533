"""The model of Forge and Forge Neo: its weights come from inference mode, and its memory manager moves them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from embedding_estimate.hosts.thaw import thaw
from embedding_estimate.hosts.webui.forge.engines import clip_engines, reading_settings
from embedding_estimate.hosts.webui.forge_objects import ForgeObjects, recomputed_where_cast
from embedding_estimate.hosts.webui.norms import norms_keep_their_input
from embedding_estimate.hosts.webui.replacing import replaced
from embedding_estimate.hosts.webui.support import LATENT_SCALE, SIZES
from embedding_estimate.hosts.webui.turns import queued

WITH_GRADIENT = ("attention_basic", "attention_split", "attention_sub_quad", "attention_xformers", "attention_pytorch")
"""Attention functions that pass gradients back. Forge Neo has others, which are used where their package is there."""
BACKWARD = 4  # times the memory of a forward pass that the manager is asked to leave for a job


class ForgePipeline(ForgeObjects):
    """`kind.Pipeline`."""

    books = (
        *(*ForgeObjects.books, "_buffers"),
        *("forge_", "total_mem", "weight_mem", "extra_mem", "parameters_manual_cast", "prev_parameters_manual_cast"),
        *("comfy_", "model_offload_buffer_memory"),  # Neo's
    )

    @property
    def modules(self) -> Sequence[nn.Module]:
        """`kind.Pipeline.modules`."""
        return [self._model.forge_objects.clip.cond_stage_model, self.inner_model]

    @property
    def computes_in(self) -> torch.dtype | None:
        """`kind.Pipeline.computes_in`."""
        dtype: torch.dtype = self.inner_model.computation_dtype
        return dtype

    @contextmanager
    def _kept_loaded(self) -> Iterator[None]:
        """`ForgeObjects._kept_loaded`. Attention functions that pass no gradient back are replaced, too.

        The button that unloads all models waits for the end of the job.
        """
        from backend import attention, memory_management
        from backend.nn import unet

        load, own = memory_management.load_model_gpu, self._model.forge_objects.clip.patcher

        def load_others(patcher: Any) -> None:
            """At each prompt the text encoders are asked for, which could push the U-Net out."""
            if patcher is not own:
                load(patcher)

        with ExitStack() as stack:
            stack.enter_context(queued(memory_management, "unload_all_models"))
            stack.enter_context(replaced(memory_management, "load_model_gpu", load_others))
            if unet.attention_function.__name__ not in WITH_GRADIENT:
                stack.enter_context(replaced(unet, "attention_function", attention.attention_pytorch))
            yield

    def _load(self) -> None:
        """Moves within inference mode, where the weights are from, and brings these out of it."""
        from backend import memory_management

        objects = self._model.forge_objects
        side = SIZES["sdxl" if len(clip_engines(self._model)) > 1 else "sd1"] // LATENT_SCALE  # latent cells
        needed = BACKWARD * objects.unet.memory_required([1, 4, side, side])
        with torch.inference_mode():
            memory_management.load_models_gpu([objects.unet, objects.clip.patcher], memory_required=needed)
        thaw(self.modules)

    @contextmanager
    def set_up(self) -> Iterator[None]:
        """`kind.Pipeline.set_up`: also the noise levels of zero terminal SNR."""
        recomputed = recomputed_where_cast(self.modules, "parameters_manual_cast")
        with reading_settings(self._model), self._rescaled(), norms_keep_their_input(self.unet), recomputed:
            yield

    @contextmanager
    def _rescaled(self) -> Iterator[None]:
        """Within, the noise levels are those of zero terminal SNR, where the settings or the checkpoint ask for it."""
        from backend.modules.k_prediction import rescale_zero_terminal_snr_sigmas
        from modules import shared

        asked = shared.opts.sd_noise_schedule == "Zero Terminal SNR"
        if not asked and not getattr(self._model.model_config, "ztsnr", False):
            yield
            return
        predictor = self.inner_model.predictor
        before = predictor.sigmas
        predictor.set_sigmas(rescale_zero_terminal_snr_sigmas(before))
        try:
            yield
        finally:
            predictor.set_sigmas(before)
