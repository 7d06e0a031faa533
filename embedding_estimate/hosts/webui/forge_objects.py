"""What the models of reForge and of Forge have in common: their parts are in `forge_objects`, moved by the WebUI."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embedding_estimate.hosts.checkpointing import checkpointed
from embedding_estimate.hosts.thaw import ordinary
from embedding_estimate.hosts.webui import support
from embedding_estimate.hosts.webui.replacing import replaced


class ForgeObjects(ABC):
    """`kind.Pipeline`, but for what the two differ in."""

    books: tuple[str, ...] = (
        "_parameters",  # moved, or merged with a LoRA
        *("network_", "lora_"),
        *("weight_function", "bias_function", "model_lowvram", "lowvram_patch_counter", "device"),
        *("model_loaded_weight_memory", "current_weight_patches_uuid"),
    )

    def __init__(self, model: Any):
        self._model = model

    @property
    def inner_model(self) -> Any:
        """`kind.Pipeline.inner_model`."""
        return self._model.forge_objects.unet.model

    @property
    def unet(self) -> nn.Module:
        """`kind.Pipeline.unet`."""
        unet: nn.Module = self.inner_model.diffusion_model
        return unet

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """`kind.Pipeline.loaded`.

        What extensions did to the U-Net for the last image is left out, as the WebUI does before the next one.
        """
        plain = self._model.forge_objects_after_applying_lora.shallow_copy()
        with replaced(self._model, "forge_objects", plain):
            self._load()
            with self._kept_loaded():
                yield

    @abstractmethod
    def _load(self) -> None:
        """Moves text encoders and U-Net to the device and makes ordinary tensors of their weights."""

    @abstractmethod
    def _kept_loaded(self) -> AbstractContextManager[None]:
        """Within, a prompt does not make the WebUI move text encoders or U-Net."""

    def notes(self) -> Sequence[str]:
        """`kind.Pipeline.notes`: token merging is drawn anew at each call of the U-Net."""
        return support.without_token_merging()

    def denoise(self, x: Tensor, sigma: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
        """`kind.Pipeline.denoise`. The U-Net writes into the options, so each call has its own."""
        pooled = {} if vector is None else {"y": vector}
        options = dict(self._model.forge_objects.unet.model_options.get("transformer_options", {}))
        denoised: Tensor = self.inner_model.apply_model(
            x, sigma, c_crossattn=context, transformer_options=options, **pooled
        )
        return denoised

    def contexts(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """`kind.Pipeline.contexts`: hypernetworks do nothing there."""
        return context, context

    def decode(self, latents: Tensor) -> list[Tensor]:
        """`kind.Pipeline.decode`."""
        decoded = [self._model.decode_first_stage(latent).float().cpu() for latent in torch.split(latents, 1)]
        self._load()  # the VAE may have pushed them out
        return [ordinary(image) for image in decoded]


@contextmanager
def recomputed_where_cast(networks: Sequence[nn.Module], cast: str) -> Iterator[None]:
    """Checkpoints in the networks with weights that are cast in each call, since what is cast would be kept until the
    backward pass: a second text encoder for each pass through it, and a second U-Net where memory is short.

    `cast` is the switch by which a part casts its weights.
    """
    from modules import devices

    with ExitStack() as stack:
        for network in networks:
            if any(getattr(part, cast, False) for part in network.modules()):
                stack.enter_context(checkpointed(network, devices.autocast))
        yield
