"""The model of reForge and Forge Classic: its weights are in `forge_objects`, moved by their own memory management."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from embedding_estimate.hosts.thaw import thaw
from embedding_estimate.hosts.webui.forge_objects import ForgeObjects, recomputed_where_cast
from embedding_estimate.hosts.webui.norms import norms_keep_their_input
from embedding_estimate.hosts.webui.replacing import replaced
from embedding_estimate.hosts.webui.turns import queued


class ReforgePipeline(ForgeObjects):
    """`kind.Pipeline`."""

    books = (*ForgeObjects.books, "ldm_patched_", "prev_ldm_patched_")

    @property
    def modules(self) -> Sequence[nn.Module]:
        """`kind.Pipeline.modules`: the shell, and what it runs on, not all of which is the shell's."""
        objects = self._model.forge_objects
        return [self._model, objects.clip.cond_stage_model, objects.unet.model]

    @property
    def computes_in(self) -> torch.dtype | None:
        """`kind.Pipeline.computes_in`: weights that the device cannot compute with are cast in each call."""
        dtype: torch.dtype | None = self.inner_model.manual_cast_dtype
        return dtype

    @contextmanager
    def _kept_loaded(self) -> Iterator[None]:
        """`ForgeObjects._kept_loaded`: reForge would ask for the encoders at each prompt, and empty caches.

        The settings page's buttons that unload and load a model wait for the end of the job: reForge's move the
        shell, Classic's unloads all models.
        """
        from ldm_patched.modules import model_management
        from modules import sd_models_xl
        from modules_forge import forge_clip

        with ExitStack() as stack:
            stack.enter_context(queued(self._model, "to"))
            stack.enter_context(queued(model_management, "unload_all_models"))
            for module in (forge_clip, sd_models_xl):
                stack.enter_context(replaced(module, "move_clip_to_gpu", lambda: None))
            yield

    def _load(self) -> None:
        """Moves within inference mode, where some of the weights may be from, and brings these out of it."""
        from ldm_patched.modules import model_management

        objects = self._model.forge_objects
        load = model_management.load_models_gpu
        whole = {"force_full_load": True} if "force_full_load" in inspect.signature(load).parameters else {}
        with torch.inference_mode():
            load([objects.unet, objects.clip.patcher], **whole)  # Classic knows no such argument
        thaw(self.modules)

    @contextmanager
    def set_up(self) -> Iterator[None]:
        """`kind.Pipeline.set_up`: zero terminal SNR where the settings or the checkpoint ask for it."""
        from modules import shared

        if shared.opts.sd_noise_schedule == "Zero Terminal SNR" or getattr(self._model, "ztsnr", False):
            self._rescale()
        # its text encoders are copied in fp32, where nothing is cast
        with norms_keep_their_input(self.unet), recomputed_where_cast([self.unet], "ldm_patched_cast_weights"):
            yield

    def _rescale(self) -> None:
        """In both places that know the noise levels; Classic rescales them in the first one only."""
        from ldm_patched.modules import model_sampling
        from modules import sd_models, shared

        rescale = getattr(model_sampling, "rescale_zero_terminal_snr_sigmas", None)
        if rescale is None:
            return  # done when the checkpoint was loaded
        if not shared.opts.use_old_clip_g_load_and_ztsnr_application:
            self._model.alphas_cumprod_original = self._model.alphas_cumprod
            sd_models.apply_alpha_schedule_override(self._model)
        levels = self.inner_model.model_sampling
        levels.set_sigmas(rescale(levels.sigmas))
