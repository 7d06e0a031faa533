"""One CLIP text encoder: from text to tokens, and from chunks of tokens and live vectors to hidden states."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embedding_estimate.hosts.standalone.chunks import Chunk, Marks

LEVELS = 8  # of an ampersand escaped again and again, more than anybody's text has
NESTED = re.compile(rf"&(?:amp;){{{LEVELS},}}")


@dataclass(frozen=True)
class Output:
    """Which of an encoder's hidden states are used."""

    skip: int = 0  # last layers left out
    final_norm: bool = True
    pooled: bool = False  # also the projected state at the end mark, which takes all layers


class ClipEncoder:
    """A transformers CLIP text model with its tokenizer, called with chunks.

    Vectors enter after the token embedding, by a hook that exists only during the call. Layers that are not needed are
    left out, also only during the call.
    """

    def __init__(self, key: str, model: Any, tokenizer: Any, output: Output):
        """`model` is a CLIPTextModel or CLIPTextModelWithProjection. The key `clip_l` means OpenAI's CLIP. Any other
        key means OpenCLIP, which pads and cleans text differently."""
        self.key = key
        self.constant = functools.lru_cache(maxsize=1024)(_constant)
        self.model = model
        self.tokenizer = tokenizer
        self.output = output
        self.core = getattr(model, "text_model", model)  # transformers 4 nests CLIPTextModel, 5 does not
        self.layers = len(self.core.encoder.layers)
        end, comma = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(",</w>")
        self.marks = Marks(
            begin=tokenizer.bos_token_id,
            end=end,
            pad=end if key == "clip_l" else 0,
            comma=None if comma == tokenizer.unk_token_id else comma,
            length=model.config.max_position_embeddings - 2,
        )

    @property
    def table(self) -> Tensor:
        """The token embeddings (V, width)."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without begin and end marks."""
        if not texts:
            return []
        cleaned = [clean(text, open_clip=self.key != "clip_l") for text in texts]
        tokens = self.tokenizer(cleaned, truncation=False, add_special_tokens=False, verbose=False)
        return [list(row) for row in tokens["input_ids"]]

    def token_text(self, token: int) -> str:
        """The text of a token: a word, or a piece of a word with "..." after it."""
        piece = self.tokenizer.convert_ids_to_tokens(token)
        text = self.tokenizer.decode([token]).strip()
        return text if piece is None or piece.endswith(("</w>", "|>")) else f"{text}..."

    def encode(self, chunks: Sequence[Chunk]) -> tuple[Tensor, Tensor | None]:
        """Hidden states z (B, T, C) of B chunks and, if the output has them, the pooled ones (B, P).

        In the parameters' dtype; differentiable in the chunks' vectors.
        """
        rows = tuple(tuple(chunk.tokens) for chunk in chunks)
        tokens = self.constant(rows, torch.int64, self.table.device)  # (B, T)
        depth = self.layers - self.output.skip
        with ExitStack() as changes:
            changes.enter_context(_spliced(self.model.get_input_embeddings(), chunks, self.key))
            if not self.output.pooled:
                changes.enter_context(_cut(self.core.encoder, depth))
            layers = self.core.encoder.layers
            after = layers[depth] if depth < len(layers) else self.core.final_layer_norm
            unnormed = changes.enter_context(_input_of(after))
            last = self.model(input_ids=tokens).last_hidden_state  # (B, T, C), after the final norm
            z = last if self.output.final_norm else unnormed[0]
            return z, self._pooled(last, tokens) if self.output.pooled else None

    def _pooled(self, last: Tensor, tokens: Tensor) -> Tensor:
        """The state at each row's first end mark (B, C), projected (B, P)."""
        ends = (tokens == self.marks.end).int().argmax(dim=1)  # (B,)
        pooled: Tensor = self.model.text_projection(last[torch.arange(len(last), device=last.device), ends])
        return pooled


def _constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """On the device; an encoder keeps the last ones, since each upload makes it wait."""
    return torch.tensor(values, dtype=dtype, device=device)


def clean(text: str, *, open_clip: bool) -> str:
    """Prepares text as the two CLIPs' own tokenizers do: repaired by ftfy, spaces joined, lower case.

    OpenCLIP also resolves HTML entities, and its marks are `<start_of_text>` and `<end_of_text>`.
    """
    if not open_clip:  # CLIP's marks stay as they are when typed in a prompt
        parts = re.split(r"(<\|(?:start|end)oftext\|>)", text)
        return " ".join(part if n % 2 else " ".join(_repaired(part).split()).lower() for n, part in enumerate(parts))
    text = html.unescape(html.unescape(_repaired(text)))
    text = " ".join(text.split()).lower()
    for name, ours in (("start_of_text", "startoftext"), ("end_of_text", "endoftext")):
        text = text.replace(f"<|{ours}|>", f"<| {ours} |>").replace(f"<{name}>", f"<|{ours}|>")
    return text


def _repaired(text: str) -> str:
    """The text as ftfy repairs it.

    ftfy reads a line again for each level of `&amp;amp;...` and removes all of them. Until a line contains `<`, which
    makes ftfy keep entities, a few levels give the same result and are all that is passed to it.
    """
    import ftfy

    sign = text.find("<")
    end = len(text) if sign < 0 else text.rfind("\n", 0, sign) + 1
    repaired: str = ftfy.fix_text(NESTED.sub("&" + "amp;" * LEVELS, text[:end]) + text[end:])
    return repaired


@contextmanager
def _cut(encoder: Any, depth: int) -> Iterator[None]:
    """While active, the encoder runs its first `depth` layers only."""
    layers = encoder.layers
    encoder.layers = layers[:depth]
    try:
        yield
    finally:
        encoder.layers = layers


@contextmanager
def _input_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """While active, collects the inputs of a module in a list."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def _spliced(embedding: nn.Module, chunks: Sequence[Chunk], key: str) -> Iterator[None]:
    """Puts the chunks' vectors (N, C) into their places in the rows (B, T, C) of the token embedding."""

    def splice(_module: nn.Module, _args: object, rows: Tensor) -> Tensor:
        return torch.stack([_row(row, chunk, key) for row, chunk in zip(rows, chunks, strict=True)])

    handle = embedding.register_forward_hook(splice)
    try:
        yield
    finally:
        handle.remove()


def _row(row: Tensor, chunk: Chunk, key: str) -> Tensor:
    for offset, placed in chunk.fixes:
        start = offset + 1  # behind the begin mark
        vectors = placed.vectors[key].to(row)[: len(row) - start]  # (N, C)
        row = torch.cat([row[:start], vectors, row[start + len(vectors) :]])  # (T, C)
    return row
