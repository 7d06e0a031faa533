"""What WebUIs differ in: one face, with an implementation for each family of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from embedding_estimate.hosts.webui.engine import Engine
from embedding_estimate.model.host import Family, Prediction

Autocast = Callable[[], AbstractContextManager[Any]]


class Pipeline(Protocol):
    """How a loaded model is brought in, denoises and decodes."""

    books: tuple[str, ...]
    """Beginnings of the attributes by which the WebUI knows where it keeps weights and what it has changed in them.
    These stay as they are by the end of a job."""

    @property
    def modules(self) -> Sequence[nn.Module]:
        """All that the model runs on but the VAE."""
        ...

    @property
    def unet(self) -> nn.Module:
        """The network, without what turns its predictions into images."""
        ...

    @property
    def computes_in(self) -> torch.dtype | None:
        """The U-Net's precision, or None where it computes in that of its weights."""
        ...

    @property
    def inner_model(self) -> Any:
        """What some samplers ask the denoiser for under this name."""
        ...

    def loaded(self) -> AbstractContextManager[None]:
        """Within, text encoders and U-Net are on the device together."""
        ...

    def set_up(self) -> AbstractContextManager[None]:
        """Within, the model is as the WebUI's settings have it by now, and passes gradients back."""
        ...

    def notes(self) -> Sequence[str]:
        """What of the settings is not heeded."""
        ...

    def denoise(self, x: Tensor, sigma: Tensor, context: Tensor, vector: Tensor | None) -> Tensor:
        """Denoised (B, C, h, w) in k-diffusion's form; context (B, L, C) and vector (B, V) for the whole batch."""
        ...

    def contexts(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """What cross-attentions make keys and values of."""
        ...

    def decode(self, latents: Tensor) -> list[Tensor]:
        """Latents (S, C, h, w) to S images (1, 3, H, W) in [-1, 1], fp32 on the CPU."""
        ...


class Kind(Protocol):
    """A family of WebUIs."""

    def at_hand(self) -> Any:
        """The model that is there now. Loads, changes and waits for nothing.

        Raises `ModelError` where there is none, or one that cannot be used.
        """
        ...

    def chosen(self) -> Any:
        """The model that is chosen on the page, loaded where it is not. To be called within a `turns.turn`.

        Raises `ModelError`, by name, for what cannot be used.
        """
        ...

    def checkpoint(self, model: Any) -> tuple[str, str]:
        """The name and the short hash of what is loaded; no hash where the WebUI was told to make none.

        Text encoders of their own files, where a WebUI can choose them beside the checkpoint, stand behind both.
        """
        ...

    def pipeline(self, model: Any) -> Pipeline:
        """The pipeline of a `chosen` model."""
        ...

    def engines(self, model: Any, autocast: Autocast) -> list[Engine]:
        """The text engines of a loaded model: one for SD1 and SD2, two for SDXL. `autocast` is what they run in."""
        ...

    def prediction(self, model: Any) -> Prediction:
        """What the U-Net predicts."""
        ...

    def clip_skip(self, model: Any, family: Family) -> int:
        """The setting for clip skip, or 1 where it does nothing."""
        ...

    def mode(self, model: Any, emphasis: str) -> AbstractContextManager[None]:
        """Within, weights are applied as in another of the emphasis modes."""
        ...

    def infotext_kept(self) -> AbstractContextManager[None]:
        """What is collected within for the infotext of the next image does not stand in it."""
        ...

    def embeddings(self, model: Any) -> Any:
        """The database that the model's prompts are read with: `word_embeddings` and `skipped_embeddings` by name.
        None where there is none."""
        ...

    def read_embeddings_anew(self, app: Any) -> None:
        """Has all that knows embeddings by name read the folder again.

        `app` is the WebUI's, or None before it has started.
        """
        ...

    def token_count(self, text: str) -> int:
        """The WebUI's own count. Raises `ModelError` where no checkpoint is loaded."""
        ...

    def say(self, p: Any, line: str) -> None:
        """Writes a line beside the images of a job `p` of the WebUI's."""
        ...


def kind() -> Kind:
    """The family of the WebUI that runs in this process."""
    from modules import sd_models

    if hasattr(sd_models, "forge_model_reload"):
        from embedding_estimate.hosts.webui.forge.kind import Forge

        return Forge()
    if find_spec("ldm_patched") is not None:
        from embedding_estimate.hosts.webui.reforge.kind import Reforge

        return Reforge()
    from embedding_estimate.hosts.webui.a1111.kind import Automatic1111

    return Automatic1111()
