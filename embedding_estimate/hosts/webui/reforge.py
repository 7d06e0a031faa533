"""reForge's model: the weights are in `forge_objects`, moved by its own memory management."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embedding_estimate.hosts.webui.replacing import replaced


class ForgePipeline:
    """How the loaded model is brought in, denoises and decodes."""

    def __init__(self, model: Any):
        self._model = model

    @property
    def modules(self) -> Sequence[nn.Module]:
        """The shell, and what it runs on: not all of that is the shell's."""
        objects = self._model.forge_objects
        return [self._model, objects.clip.cond_stage_model, objects.unet.model]

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Text encoders and U-Net on the device together for as long as it lasts.

        What extensions did to the U-Net for the last image is left out, as reForge does before the next one.
        """
        from modules import sd_models_xl
        from modules_forge import forge_clip

        with ExitStack() as stack:
            plain = self._model.forge_objects_after_applying_lora.shallow_copy()
            stack.enter_context(replaced(self._model, "forge_objects", plain))
            self._load()
            for module in (forge_clip, sd_models_xl):  # it would ask for the encoders at each prompt, and empty caches
                stack.enter_context(replaced(module, "move_clip_to_gpu", lambda: None))
            yield

    def _load(self) -> None:
        """Moves within inference mode, where some of the weights may be from, and brings these out of it."""
        from ldm_patched.modules import model_management

        objects = self._model.forge_objects
        with torch.inference_mode():
            model_management.load_models_gpu([objects.unet, objects.clip.patcher], force_full_load=True)
        thaw(self.modules)

    @contextmanager
    def set_up(self) -> Iterator[None]:
        """Zero terminal SNR where the settings or the checkpoint ask for it, in both places that know the levels."""
        from ldm_patched.modules.model_sampling import rescale_zero_terminal_snr_sigmas
        from modules import sd_models, shared

        if shared.opts.sd_noise_schedule == "Zero Terminal SNR" or getattr(self._model, "ztsnr", False):
            if not shared.opts.use_old_clip_g_load_and_ztsnr_application:
                self._model.alphas_cumprod_original = self._model.alphas_cumprod
                sd_models.apply_alpha_schedule_override(self._model)
            levels = self._model.forge_objects.unet.model.model_sampling
            levels.set_sigmas(rescale_zero_terminal_snr_sigmas(levels.sigmas))
        yield

    def notes(self) -> Sequence[str]:
        """What of the settings is not heeded: reForge's token merging is drawn anew at each call of the U-Net."""
        from modules import shared

        return ("made without the settings' token merging",) if shared.opts.token_merging_ratio else ()

    def denoise(self, _wrapper: Any, x: Tensor, sigma: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
        """Denoised (B, C, h, w); context and vector for the whole batch."""
        unet = self._model.forge_objects.unet
        pooled = {} if vector is None else {"y": vector}
        options = dict(unet.model_options.get("transformer_options", {}))
        denoised: Tensor = unet.model.apply_model(x, sigma, c_crossattn=context, transformer_options=options, **pooled)
        return denoised

    def contexts(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """What cross-attentions make keys and values of: reForge has no hypernetworks there."""
        return context, context

    def decode(self, latents: Tensor) -> list[Tensor]:
        """Latents (S, C, h, w) to S pictures (1, 3, H, W) in [-1, 1], fp32 on the CPU."""
        pictures = [self._model.decode_first_stage(latent).float().cpu() for latent in torch.split(latents, 1)]
        self._load()  # the VAE may have pushed them out
        return pictures


@torch.no_grad()
def thaw(modules: Sequence[nn.Module]) -> None:
    """Makes ordinary tensors of weights that come from inference mode, through which no gradient goes back.

    Weights that modules share stay shared. One is held twice at a time, not all of them.
    """
    places: dict[int, list[tuple[Any, str]]] = {}  # by identity of the weight, where it stands
    for part in dict.fromkeys(part for module in modules for part in module.modules()):
        for table in (part._parameters, part._buffers):
            for name, value in table.items():
                if value is not None and _locked(value):
                    places.setdefault(id(value), []).append((table, name))
    value = None  # or it would hold the last one
    with torch.inference_mode(False):
        for standing in places.values():
            first, name = standing[0]
            ordinary = first[name].detach().clone()
            if isinstance(first[name], nn.Parameter):
                ordinary = nn.Parameter(ordinary, False)
            for table, name in standing:
                table[name] = ordinary


def _locked(value: Tensor) -> bool:
    """Whether a tensor is from inference mode, or was and has been moved since."""
    if value.is_inference():
        return True
    try:
        _ = value._version
    except RuntimeError:
        return True
    return False
