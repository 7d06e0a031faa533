"""A host small enough to do its maths by hand: a linear text encoder and a denoiser that reads its context.

Words are looked up in a fixed random table. `(word:1.5)` scales the word's context row, as emphasis does after CLIP.
` AND ` and `[from:to:evaluation]` work as far as the tests need them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from shaking import shaken
from torch import Tensor, nn

from embedding_estimate.model.contexts import Contexts
from embedding_estimate.model.host import MODES, Conditioning, Denoise, ModelInfo, Stage, Vectors

WIDTH, ROWS, CHANNELS, SIDE, WORDS, HEADS = 6, 6, 4, 4, 64, 2
INFO = ModelInfo(
    "sd1",
    "epsilon",
    "toy",
    "0123456789",
    {"clip_l": WIDTH},
    ROWS - 2,
    CHANNELS,
    8,
    8 * SIDE,
    1,
    "No norm",
    contexts=Contexts(train=("a {}", "{} star"), select=("big {}",), report=("blue {}", "{} cat")),
    negative_contexts=Contexts(train=("{} cat",), select=("blue {}",), report=("big {}", "{} star")),
)


class ToyAttention:
    """`host.CrossAttention` that can be called."""

    to_q: nn.Module
    to_out: nn.Module

    def __init__(self, generator: torch.Generator) -> None:
        def linear(inner: int, outer: int, scale: float) -> nn.Linear:
            made = nn.Linear(inner, outer, bias=False, dtype=torch.float64).requires_grad_(False)
            made.weight.copy_(scale * torch.randn(outer, inner, generator=generator, dtype=torch.float64))
            return made

        self.heads = HEADS
        self.to_q, self.to_k, self.to_v = linear(CHANNELS, WIDTH, 1), linear(WIDTH, WIDTH, 0.2), linear(WIDTH, WIDTH, 1)
        self.to_out = linear(WIDTH, CHANNELS, 0.3)

    def read(self, context: Tensor) -> tuple[Tensor, Tensor]:
        return self.to_k(context), self.to_v(context)

    def __call__(self, rows: Tensor, context: Tensor) -> Tensor:
        """Rows (B, T, CHANNELS) and a context (B or 1, L, WIDTH) to (B, T, CHANNELS)."""
        q, k, v = (
            value.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for value in (self.to_q(rows), *(each.expand(len(rows), -1, -1) for each in self.read(context)))
        )
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)  # (B, H, T, L)
        gathered: Tensor = self.to_out((weights @ v).transpose(1, 2).flatten(2))
        return gathered


class ToyModel:
    samplers: Sequence[str] = ("Euler", "DPM++ SDE")
    schedules: Sequence[str] = ("Karras",)
    emphasis_modes: Sequence[str] = MODES

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(shaken(0))

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.info = INFO
        self.device = torch.device("cpu")
        self.table = 0.1 * draw(WORDS, WIDTH)
        self.projection = draw(WIDTH, WIDTH)
        self.places = 0.3 * draw(ROWS, WIDTH)
        self.attention = ToyAttention(generator)
        self.weighing = INFO.emphasis
        self.names: list[str] = []
        self.denoised = 0  # samples
        self.free: int | None = None  # bytes of the device

    # the prompt side

    def token_ids(self, text: str) -> list[int]:
        return [zlib.crc32(word.encode()) % WORDS for word in re.findall(r"[a-z]+", text)]

    def token_vectors(self, text: str) -> dict[str, Tensor]:
        return {"clip_l": self.table[self.token_ids(text)]}

    def token_weights(self, text: str) -> list[float]:
        return self._read(text)[1]

    def padding_vectors(self) -> dict[str, Tensor]:
        return {"clip_l": torch.zeros(WIDTH, dtype=torch.float64)}

    def embedding_names(self) -> list[str]:
        return self.names

    def notes(self, prompt: str) -> list[str]:
        return []

    @contextmanager
    def mode(self, emphasis: str) -> Iterator[None]:
        before, self.weighing = self.weighing, emphasis
        yield
        self.weighing = before

    def vocabulary(self) -> dict[str, Tensor]:
        return {"clip_l": self.table}

    def token_text(self, key: str, token: int) -> str:
        return f"{key}:{token}"

    def _conditioning(self, rows: Tensor, weights: Tensor) -> Conditioning:
        """Rows (n, width) and weights (n,) of a prompt to its context (1, L, C); each further chunk adds L rows."""
        chunks = max(1, -(-len(rows) // (ROWS - 2)))
        filled = torch.zeros(chunks * ROWS, WIDTH, dtype=rows.dtype)
        scale = torch.ones(chunks * ROWS, 1, dtype=rows.dtype)
        places = [i // (ROWS - 2) * ROWS + i % (ROWS - 2) + 1 for i in range(len(rows))]
        filled = filled.index_add(0, torch.tensor(places, dtype=torch.long), rows)
        scale[places, 0] = weights.to(scale)
        plain = torch.tanh(3 * filled @ self.projection + self.places.repeat(chunks, 1))
        encoded = plain * scale
        if self.weighing == "Original":
            encoded = encoded * (plain.mean() / encoded.mean())  # 1 to the bit where there are no weights
        return Conditioning(encoded[None])

    def _encode_plain(self, text: str, weights: bool) -> Conditioning:
        ids, scales = self._read(text)
        return self._conditioning(self.table[ids], torch.tensor(scales if weights else [1.0] * len(scales)))

    def _read(self, text: str) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        scales: list[float] = []
        for words, number, bare in re.findall(r"\(([^():]*):([\d.]+)\)|([a-z]+)", text):
            found = self.token_ids(words or bare)
            ids += found
            scales += [float(number) if number else 1.0] * len(found)
        return ids, scales

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
        schedule = re.search(r"\[([a-z ]*):([a-z ]*):(\d+)\]", prompt)
        texts = [(evaluations, prompt)]
        if schedule:
            before, after, when = schedule.groups()
            texts = [
                (int(when), prompt.replace(schedule[0], before)),
                (evaluations, prompt.replace(schedule[0], after)),
            ]
        stages = []
        for until, text in texts:
            parts = []
            for part in text.split(" AND ") if not negative else [text]:
                words, *weight = re.split(r":(-?[\d.]+)$", part.strip())[:2]
                parts.append((self._encode_plain(words, weights), float(weight[0]) if weight else 1.0))
            stages.append(Stage(until, tuple(parts)))
        return stages

    def encode_vectors(
        self, vectors: Vectors, templates: Sequence[str], *, width: int, height: int, negative: bool = False
    ) -> list[Conditioning]:
        return [self._encode_vectors(vectors, template) for template in templates]

    def _encode_vectors(self, vectors: Vectors, template: str) -> Conditioning:
        rows: list[Tensor] = []
        scales: list[float] = []
        slots = r"\((\{[\d:]*\}):([\d.]+)\)|(\{[\d:]*\})|([^{}()]+)"
        for inside, number, bare, words in re.findall(slots, template):
            first, _, last = (inside or bare).strip("{}").partition(":")
            mine = vectors["clip_l"].to(self.table)[int(first) if first else None : int(last) if last else None]
            rows.append(self.token_vectors(words)["clip_l"] if words else mine)
            scales += [float(number) if number else 1.0] * len(rows[-1])
        return self._conditioning(torch.cat(rows), torch.tensor(scales))

    # the picture side

    def denoise(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        self.denoised += len(x)
        s = sigma.view(-1, 1, 1, 1)
        rows = (x / (1 + s**2).sqrt()).flatten(2).transpose(1, 2).to(self.table)  # (B, h*w, C)
        wanted = self.attention(rows, conditioning.context).transpose(1, 2).view_as(x)
        return (x + s**2 * wanted) / (1 + s**2)

    def cross_attentions(self) -> list[ToyAttention]:
        return [self.attention]

    def free_memory(self) -> int | None:
        return self.free

    def release(self, *, for_good: bool = False) -> bool:
        return False

    def checkpointed(self) -> AbstractContextManager[None]:
        return nullcontext()

    def evaluations(self, sampler: str, steps: int) -> int:
        return steps

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
        noise = [
            torch.randn(CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(s), dtype=torch.float64)
            for s in seeds
        ]
        sigmas = torch.linspace(10 ** (1 / 7), 0.1 ** (1 / 7), steps, dtype=torch.float64) ** 7
        x = torch.stack(noise) * sigmas[0]
        for index, (sigma, following) in enumerate(zip(sigmas, [*sigmas[1:], torch.tensor(0.0)], strict=True)):
            denoised = denoise(x, sigma.expand(len(x)), index)
            x = x + (x - denoised) / sigma * (following - sigma)
        return x

    def decode(self, latents: Tensor) -> Tensor:
        return (1 + latents[:, :3].sin()) / 2  # no size of latents makes all pictures one


class ToyHost:
    def __init__(self) -> None:
        self.model = ToyModel()
        self.lent = False
        self.added: dict[str, Vectors] = {}
        self.shown: list[tuple[str, int, int]] = []
        self.waiting = False
        self.stop_at = ""  # the phase in which the host's own button is pressed

    @property
    def info(self) -> ModelInfo:
        return self.model.info

    def add_embedding(self, name: str, vectors: Vectors) -> None:
        self.added[name] = vectors

    @contextmanager
    def borrow(self, check: Callable[[], None] = lambda: None) -> Iterator[ToyModel]:
        assert not self.lent
        self.lent = True
        try:
            yield self.model
        finally:
            self.lent = False

    def wanted(self) -> bool:
        return self.waiting

    def show(self, phase: str, done: int, total: int) -> bool:
        self.shown.append((phase, done, total))
        return phase == self.stop_at
