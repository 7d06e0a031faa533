"""All that the core may ask of a loaded model.

A host is a place where a Stable Diffusion model is loaded: a WebUI, or `hosts.standalone`. It lends the model
for the length of one job. Nothing here assumes a width, a chunk length or one text encoder: vectors are always a
mapping from the encoder's key (`clip_l`, `clip_g`) to a tensor (N, width), and SD1 and SD2 simply have one key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from embedding_estimate.model.contexts import NEGATIVE_PROMPTS, PROMPTS, Contexts

Family = Literal["sd1", "sd2", "sdxl"]
Prediction = Literal["epsilon", "v"]
MODES = ("Original", "No norm")  # for emphasis, of those that apply it
Vectors = Mapping[str, Tensor]  # encoder key -> (N, width)


@dataclass(frozen=True)
class ModelInfo:
    """What is loaded, and how the host is set up to use it."""

    family: Family
    prediction: Prediction
    name: str  # checkpoint name without its folder
    hash: str  # short hash of the checkpoint, or "" where it has none
    widths: Mapping[str, int]  # encoder key -> width of its token vectors
    chunk_tokens: int  # tokens in a chunk without its begin and end marks, 75 for CLIP
    latent_channels: int
    latent_scale: int  # pixels per latent cell along one side, 8 for SD
    default_size: int  # pixels, the side that the family was trained at
    clip_skip: int
    emphasis: str  # "Original", "No norm", "Ignore" or "None"
    networks: Sequence[str] = ()  # extra networks that the host's settings add to every prompt, as they are typed
    contexts: Contexts = PROMPTS  # that embeddings are trained in, in words that mean something to this model
    negative_contexts: Contexts = NEGATIVE_PROMPTS


@dataclass(frozen=True)
class Conditioning:
    """What the U-Net is told. SDXL's pooled and size vector is part of it and is matched like the rest."""

    context: Tensor  # (1, L, C), L a multiple of the chunk length with its marks
    vector: Tensor | None = None  # (1, V), SDXL only


@dataclass(frozen=True)
class Stage:
    """A prompt for a stretch of the sampling: used while the 0-based denoiser evaluation is <= `until`.

    More than one part is the prompt's `AND`: the parts' predictions are composed with these weights
    (Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models").
    """

    until: int
    parts: tuple[tuple[Conditioning, float], ...]


Denoise = Callable[[Tensor, Tensor, int], Tensor]
"""(x (B, C, h, w), sigma (B,), 0-based evaluation) -> denoised (B, C, h, w)"""


class CrossAttention(Protocol):
    """One place where the U-Net reads text: softmax(q k' / sqrt(d)) v for each of H heads, d = width / H."""

    to_q: nn.Module  # its output (B, T, H * d) are the queries, before the heads are split
    to_out: nn.Module  # called with what the heads have gathered (B, T, H * d)
    heads: int

    def read(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (1, L, H * d) in fp32 of a context (1, L, C), by the module's own projections.

        Differentiable in the context, also where the model is in half precision.
        """
        ...


class BorrowedModel(Protocol):
    """The loaded model, frozen, on its device, for the length of one job."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def samplers(self) -> Sequence[str]:
        """Names that `sample` takes."""
        ...

    @property
    def schedules(self) -> Sequence[str]:
        """Names of sigma schedules that `sample` takes."""
        ...

    @property
    def emphasis_modes(self) -> Sequence[str]:
        """Of `MODES`, those that `mode` takes."""
        ...

    def mode(self, emphasis: str) -> AbstractContextManager[None]:
        """Within, weights are applied as in another of the `emphasis_modes`."""
        ...

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
        """The host's own parser and encoder, embeddings by name and emphasis included. No gradient.

        Schedules count denoiser `evaluations`, not sampler steps. SDXL reads the size in pixels and whether
        the prompt is the negative one. Stages come in order; the last one lasts to the end. Without `weights`
        every multiplier is 1: the same tokens in the same chunks, as the WebUI's emphasis mode "Ignore".
        """
        ...

    def encode_vectors(
        self, vectors: Vectors, templates: Sequence[str], *, width: int, height: int, negative: bool = False
    ) -> list[Conditioning]:
        """The same path for prompts with live vectors where `{}` stands, as if an embedding were typed there.

        `{first:last}` stands for the rows from `first` to before `last`, as an embedding of its own. One conditioning
        for each template, as if it were alone, together or one after the other as is quicker. Differentiable in
        the vectors. A template itself has no schedule and no `AND`; emphasis around the braces, `({}:1.2)`, is applied
        as the host applies it to an embedding's name.
        """
        ...

    def denoise(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """D(x; sigma, conditioning), k-diffusion's form (Karras et al. 2022): x = x0 + sigma * noise.

        x (B, C, h, w) and sigma (B,) in fp32; returns denoised (B, C, h, w) in fp32. The conditioning has a
        batch of 1 and is used for all of x, or a batch of B. Differentiable in the conditioning.
        """
        ...

    def cross_attentions(self) -> Sequence[CrossAttention]:
        """All of the U-Net's, in any order."""
        ...

    def checkpointed(self) -> AbstractContextManager[None]:
        """Within, a backward pass through the U-Net computes its blocks again instead of keeping what is inside them:
        about a third slower, for a fraction of the memory."""
        ...

    def free_memory(self) -> int | None:
        """Bytes of the device that passes of the U-Net may still take; None where they are not known, or where passes
        of many latents save no time, as on a CPU."""
        ...

    def release(self, *, for_good: bool = False) -> bool:
        """Frees what the host holds for speed or precision, and makes it again when it is needed unless `for_good`;
        whether there was any."""
        ...

    def evaluations(self, sampler: str, steps: int) -> int:
        """How many denoiser evaluations a prompt schedule counts for that many sampler steps."""
        ...

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
        """Runs the host's sampler from the noise of each seed; returns latents (len(seeds), C, h, w).

        `denoise(x (S, C, h, w), sigma (S,), evaluation)` is asked for each evaluation in turn, from 0. What one seed
        gives does not depend on the seeds beside it. No gradient.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (S, C, h, w) to pictures (S, 3, H, W) in [0, 1], fp32 on the CPU. No gradient."""
        ...

    def token_ids(self, text: str) -> list[int]:
        """The first encoder's token ids of plain text: no emphasis, no begin and end marks."""
        ...

    def token_vectors(self, text: str) -> dict[str, Tensor]:
        """The vectors (n, width) that a prompt's tokens are looked up as, per encoder, embeddings inside it
        replaced by their own vectors. Emphasis is read and dropped; a prompt of several chunks is joined
        without its padding."""
        ...

    def token_weights(self, text: str) -> list[float]:
        """The weight by which the host scales what becomes of each row (n) of `token_vectors(text)`, of the first
        encoder; 1 where its emphasis mode reads no brackets."""
        ...

    def padding_vectors(self) -> dict[str, Tensor]:
        """The vector (width,) that each encoder fills its chunks with behind a prompt."""
        ...

    def embedding_names(self) -> list[str]:
        """The names that prompts are read for."""
        ...

    def notes(self, prompt: str) -> list[str]:
        """What whoever uses an embedding for this prompt has to know of this host: what no vectors can carry."""
        ...

    def vocabulary(self) -> dict[str, Tensor]:
        """The whole token embedding table (V, width) of each encoder; for its statistics, not to be changed."""
        ...


class Host(Protocol):
    """Where a model is loaded."""

    def borrow(self, check: Callable[[], None] = lambda: None) -> AbstractContextManager[BorrowedModel]:
        """Takes the host's lock and lends the model: on its device, frozen, in eval mode.

        `check` is called again and again while others have the lock, and while the model is loaded where that can be;
        what it raises ends the wait.

        On the way out everything is as it was: parameters and their `requires_grad`, train/eval mode, hooks,
        random states, device placement, state flags. An image made after the job equals one from before it,
        bit for bit.
        """
        ...

    def wanted(self) -> bool:
        """Whether somebody waits for the model while it is lent."""
        ...

    def show(self, phase: str, done: int, total: int) -> bool:
        """Shows how far a job is wherever the host shows such things; True once the host was told to stop it."""
        ...
