"""The host without a WebUI: lends a model that was loaded through diffusers for the length of a job."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from embedding_estimate.errors import QUOTED, few
from embedding_estimate.files import names
from embedding_estimate.hosts.attention import cross_attentions
from embedding_estimate.hosts.checkpointing import checkpointed
from embedding_estimate.hosts.free_memory import free_memory
from embedding_estimate.hosts.lending import given_back, random_states_kept, threads
from embedding_estimate.hosts.standalone import k_samplers, sampling, textual_inversion
from embedding_estimate.hosts.standalone.conditioner import Conditioner
from embedding_estimate.hosts.standalone.denoiser import Denoiser
from embedding_estimate.hosts.standalone.loading import LoadedModel, load
from embedding_estimate.hosts.standalone.pipeline import from_pipeline
from embedding_estimate.hosts.standalone.sampler_names import SAMPLER_NAMES, SCHEDULE_NAMES
from embedding_estimate.model.host import (
    MODES,
    Conditioning,
    CrossAttention,
    Denoise,
    ModelInfo,
    Prediction,
    Stage,
    Vectors,
)

WEBUIS_OWN = re.compile(r"<\w+:[^<>]+>|#.*")  # extra networks and comments, of which a WebUI leaves no words
POLL = 0.1  # seconds between two looks at a stop while others have the model
SMALL = 256  # width of a text encoder; products this small end before a second thread has woken up


class StandaloneModel:
    """`host.BorrowedModel` over diffusers' modules."""

    def __init__(self, loaded: LoadedModel, conditioner: Conditioner, *, emphasis: str, clip_skip: int):
        vae, unet = loaded.vae.config, loaded.unet.config
        scale = 2 ** (len(vae.block_out_channels) - 1)
        encoders = {key: encoder.model.config for key, encoder in loaded.text_encoders.items()}
        self.info = ModelInfo(
            family=loaded.family,
            prediction=loaded.prediction,
            name=loaded.name,
            hash=loaded.hash,
            widths={key: config.hidden_size for key, config in encoders.items()},
            chunk_tokens=min(config.max_position_embeddings for config in encoders.values()) - 2,
            latent_channels=unet.in_channels,
            latent_scale=scale,
            default_size=loaded.sample_size * scale,
            clip_skip=clip_skip if loaded.family == "sd1" else 1,  # which alone heeds it
            emphasis=emphasis,
            contexts=loaded.contexts["prompt"],
            negative_contexts=loaded.contexts["negative"],
        )
        self.device = loaded.device
        self.samplers: Sequence[str] = SAMPLER_NAMES
        self.schedules: Sequence[str] = SCHEDULE_NAMES
        self.emphasis_modes: Sequence[str] = MODES
        self._ignored_clip_skip = clip_skip if self.info.clip_skip != clip_skip else None
        self._vae = loaded.vae
        self._conditioner = conditioner
        self._denoiser = Denoiser(loaded.unet, loaded.alphas_cumprod, loaded.prediction)

    def mode(self, emphasis: str) -> AbstractContextManager[None]:
        return self._conditioner.mode(emphasis)

    def encode(
        self,
        prompt: str,
        *,
        evaluations: int,
        width: int,
        height: int,
        negative: bool = False,
        weights: bool = True,
    ) -> list[Stage]:
        size = {"width": width, "height": height}
        return self._conditioner.encode(prompt, evaluations=evaluations, negative=negative, weights=weights, **size)

    def encode_vectors(
        self, vectors: Vectors, templates: Sequence[str], *, width: int, height: int, negative: bool = False
    ) -> list[Conditioning]:
        return self._conditioner.encode_vectors(vectors, templates, width=width, height=height, negative=negative)

    def denoise(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        return self._denoiser(x, sigma, conditioning)

    def cross_attentions(self) -> Sequence[CrossAttention]:
        return cross_attentions(self._denoiser.unet)

    def free_memory(self) -> int | None:
        return free_memory(self.device)

    def release(self, *, for_good: bool = False) -> bool:
        return False

    def checkpointed(self) -> AbstractContextManager[None]:
        return checkpointed(self._denoiser.unet)

    def evaluations(self, sampler: str, steps: int) -> int:
        return sampling.evaluations(sampler, steps)

    def sample(
        self,
        denoise: Denoise,
        *,
        sampler: str,
        schedule: str,
        steps: int,
        seeds: Sequence[int],
        width: int,
        height: int,
    ) -> Tensor:
        scale = self.info.latent_scale
        return sampling.sample(
            denoise,
            sampler=sampler,
            schedule=schedule,
            steps=steps,
            seeds=seeds,
            shape=(self.info.latent_channels, height // scale, width // scale),
            sigmas=self._denoiser.sigmas,
            device=self.device,
            k_diffusion=self._k_diffusion,
        )

    @cached_property
    def _k_diffusion(self) -> ModuleType | None:
        return k_samplers.installed()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        scaled = (latents / self._vae.config.scaling_factor).to(self._vae.dtype)
        pictures = [self._vae.decode(latent, return_dict=False)[0].float().cpu() for latent in scaled.split(1)]
        return (torch.cat(pictures) / 2 + 0.5).clamp(0, 1)

    def token_ids(self, text: str) -> list[int]:
        return self._conditioner.token_ids(text)

    def token_count(self, text: str) -> int:
        return self._conditioner.layout(text)[1]

    def token_vectors(self, text: str) -> dict[str, Tensor]:
        return self._conditioner.token_vectors(text)

    def token_weights(self, text: str) -> list[float]:
        return self._conditioner.token_weights(text)

    def padding_vectors(self) -> dict[str, Tensor]:
        return self._conditioner.padding_vectors()

    def embedding_names(self) -> list[str]:
        return self._conditioner.embedding_names()

    def add_embedding(self, name: str, vectors: Vectors) -> None:
        self._conditioner.add_embedding(name, vectors)

    def notes(self, prompt: str) -> list[str]:
        parts = [part.strip()[:QUOTED] for part in WEBUIS_OWN.findall(prompt)]
        lines = [
            f"{part} is read as plain words here, but not in a WebUI: leave it out" for part in dict.fromkeys(parts)
        ]
        notes = few(lines, "parts of the prompts are read as plain words here: leave them out")
        if self._ignored_clip_skip:
            family = {"sd2": "Stable Diffusion 2", "sdxl": "SDXL"}[self.info.family]
            notes.append(f"clip skip {self._ignored_clip_skip} has no effect in {family}, as in a WebUI: leave it out")
        return notes

    def vocabulary(self) -> dict[str, Tensor]:
        return self._conditioner.vocabulary()

    def token_text(self, key: str, token: int) -> str:
        """What a token of the encoder `key` stands for, a row of its `vocabulary`."""
        return self._conditioner.token_text(key, token)


class StandaloneHost:
    """`host.Host` for a model that this process has loaded."""

    def __init__(self, model: StandaloneModel, modules: Sequence[nn.Module]):
        """`modules` are all that `model` runs on."""
        self._model = model
        self.modules = list(modules)
        self._lock = threading.Lock()
        self._waiting = 0

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        prediction: Prediction | None = None,
        emphasis: str = "Original",
        clip_skip: int = 1,
        embeddings: Mapping[str, Vectors] | None = None,
    ) -> StandaloneHost:
        """Loads a folder in diffusers layout, a `.safetensors` checkpoint or a hub name; see `loading.load`.

        `emphasis` and `clip_skip` mean the same as in the WebUI. `embeddings` holds the embeddings that prompts can
        use: name -> vectors (N, width) by encoder. Raises ModelError.
        """
        loaded = load(model, device=device, dtype=dtype, prediction=prediction)
        return cls.of(loaded, emphasis=emphasis, clip_skip=clip_skip, embeddings=embeddings)

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        *,
        emphasis: str = "Original",
        clip_skip: int = 1,
        embeddings: Mapping[str, Vectors] | None = None,
    ) -> StandaloneHost:
        """A host for a model that is in memory. Emphasis, clip skip and embeddings as in `load`."""
        conditioner = Conditioner(loaded, emphasis=emphasis, clip_skip=clip_skip, embeddings=embeddings or {})
        modules = [loaded.unet, loaded.vae, *(encoder.model for encoder in loaded.text_encoders.values())]
        return cls(StandaloneModel(loaded, conditioner, emphasis=emphasis, clip_skip=clip_skip), modules)

    @classmethod
    def of_pipeline(cls, pipeline: Any, *, emphasis: str = "Original", clip_skip: int = 1) -> StandaloneHost:
        """A host for a diffusers pipeline that is in memory. Prompts can use the embeddings that the pipeline has
        loaded.

        Raises ModelError for a pipeline that cannot be used, see `pipeline.from_pipeline`.
        """
        loaded = from_pipeline(pipeline)
        embeddings = textual_inversion.held_by(loaded.text_encoders)
        return cls.of(loaded, emphasis=emphasis, clip_skip=clip_skip, embeddings=embeddings)

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    def add_embedding(self, name: str, vectors: Vectors) -> None:
        """Lets prompts use the name for vectors (N, width) by encoder. Raises EmbeddingError if they do not fit."""
        with self._lock:
            self._model.add_embedding(name, vectors)

    @contextmanager
    def borrow(self, check: Callable[[], None] = lambda: None) -> Iterator[StandaloneModel]:
        """`host.Host.borrow`. Waits until nobody else has the model."""
        small = self._model.device.type == "cpu" and max(self.info.widths.values()) <= SMALL
        alone = threads(1) if small else nullcontext()
        with self._held(check), given_back(self.modules), random_states_kept(self._model.device), alone:
            for module in self.modules:
                module.requires_grad_(False).eval()
            yield self._model

    @contextmanager
    def _held(self, check: Callable[[], None]) -> Iterator[None]:
        self._waiting += 1
        try:
            while not self._lock.acquire(timeout=POLL):
                check()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._lock.release()

    def token_count(self, text: str) -> int:
        """The number of tokens that a prompt counts. Does not wait for the model. Raises EmbeddingError if a chunk
        cannot hold it."""
        return self._model.token_count(text)

    def name_warnings(self, name: str) -> list[str]:
        """`names.warnings` with this model. Does not wait for the model."""
        return names.warnings(name, self._model.token_ids, self._model.embedding_names())

    def wanted(self) -> bool:
        """`host.Host.wanted`."""
        return self._waiting > 0

    def show(self, phase: str, done: int, total: int) -> bool:
        """`host.Host.show`. There is no WebUI to show it in."""
        return False
