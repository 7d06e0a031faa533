"""A borrowed model that passes every call on to another, for those that change one of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from embedding_estimate.model.host import (
    BorrowedModel,
    Conditioning,
    CrossAttention,
    Denoise,
    ModelInfo,
    Stage,
    Vectors,
)


class ForwardingModel:
    """`host.BorrowedModel` that does what another one does."""

    def __init__(self, model: BorrowedModel):
        self._model = model

    def _before_a_call(self) -> None:
        """Comes before each call that takes time: of the text encoders and of the U-Net."""

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def samplers(self) -> Sequence[str]:
        return self._model.samplers

    @property
    def schedules(self) -> Sequence[str]:
        return self._model.schedules

    @property
    def emphasis_modes(self) -> Sequence[str]:
        return self._model.emphasis_modes

    def mode(self, emphasis: str) -> AbstractContextManager[None]:
        return self._model.mode(emphasis)

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
        self._before_a_call()
        return self._model.encode(
            prompt, evaluations=evaluations, width=width, height=height, negative=negative, weights=weights
        )

    def encode_vectors(
        self, vectors: Vectors, templates: Sequence[str], *, width: int, height: int, negative: bool = False
    ) -> list[Conditioning]:
        self._before_a_call()
        return self._model.encode_vectors(vectors, templates, width=width, height=height, negative=negative)

    def denoise(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        self._before_a_call()
        return self._model.denoise(x, sigma, conditioning)

    def cross_attentions(self) -> Sequence[CrossAttention]:
        return self._model.cross_attentions()

    def checkpointed(self) -> AbstractContextManager[None]:
        return self._model.checkpointed()

    def free_memory(self) -> int | None:
        return self._model.free_memory()

    def release(self, *, for_good: bool = False) -> bool:
        return self._model.release(for_good=for_good)

    def evaluations(self, sampler: str, steps: int) -> int:
        return self._model.evaluations(sampler, steps)

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
        return self._model.sample(
            denoise, sampler=sampler, schedule=schedule, steps=steps, seeds=seeds, width=width, height=height
        )

    def decode(self, latents: Tensor) -> Tensor:
        return self._model.decode(latents)

    def token_ids(self, text: str) -> list[int]:
        return self._model.token_ids(text)

    def token_vectors(self, text: str) -> dict[str, Tensor]:
        return self._model.token_vectors(text)

    def token_weights(self, text: str) -> list[float]:
        return self._model.token_weights(text)

    def padding_vectors(self) -> dict[str, Tensor]:
        return self._model.padding_vectors()

    def embedding_names(self) -> list[str]:
        return self._model.embedding_names()

    def notes(self, prompt: str) -> list[str]:
        return self._model.notes(prompt)

    def vocabulary(self) -> dict[str, Tensor]:
        return self._model.vocabulary()
