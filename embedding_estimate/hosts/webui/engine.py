"""One of the WebUI's text engines: its own tokens, chunks and emphasis, with live vectors among them.

An engine is what the WebUI wraps around a CLIP: `tokenize_line` reads a prompt into chunks, `process_tokens` encodes
one chunk and applies its weights last. Vectors enter through the holder `fixes`, which the wrapped token embedding
reads; they need no name there, so no embedding of the user's can be mistaken for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.hosts.batching import batches
from embedding_estimate.hosts.precision import GradientScale
from embedding_estimate.hosts.slots import SLOT, marks
from embedding_estimate.hosts.webui.exact import ExactCopy
from embedding_estimate.hosts.webui.replacing import replaced

MARKED = -1  # the token that the first mark becomes on the way to the chunks, the others being the numbers below


@dataclass
class Live:
    """Vectors in the place of an embedding: the attributes that the WebUI asks of one."""

    vectors: int  # N
    vec: Tensor | None  # (N, width)
    rows: slice  # of all vectors, that it is
    name: str = "{}"
    shorthash: str = ""


class Engine:
    """Encodes with the WebUI's own code, one text encoder at a time."""

    def __init__(
        self,
        key: str,
        engine: Any,
        autocast: Callable[[], AbstractContextManager[Any]],
        *,
        embedding: Any,
        holder: Any,
        names: Any,
        exact: ExactCopy | None,
    ):
        """
        Args:
            key: The encoder's, such as "clip_l".
            engine: The WebUI's own.
            autocast: What the WebUI computes in.
            embedding: The module around the encoder's token embedding, which is its `wrapped`.
            holder: What has the `fixes` that `embedding` reads.
            names: The database that the engine looks embeddings up in.
            exact: The encoder in fp32, or None where it computes in fp32 whatever its weights are stored in.
        """
        self.key = key
        self.engine = engine
        self.autocast = autocast
        self.embedding = embedding
        self.holder = holder
        self.names = names
        self.exact = exact
        self._layouts: dict[tuple[str, int], tuple[list[Live], list[Any]]] = {}

    @property
    def table(self) -> Tensor:
        """The token embeddings (V, width)."""
        weight: Tensor = self.embedding.wrapped.weight
        return weight

    @property
    def padding(self) -> Tensor:
        """The row (width,) that chunks are filled up with."""
        return self.table[self.engine.id_pad]

    def token_ids(self, text: str) -> list[int]:
        return list(self.engine.tokenize([text])[0])

    def token_count(self, text: str) -> int:
        return int(self.engine.tokenize_line(text)[1])

    def token_vectors(self, text: str) -> Tensor:
        """The rows (n, width) that the prompt's tokens and embeddings are looked up as, padding left out."""
        return torch.cat([self.table[:0], *(rows for rows, _ in self._rows(text))])

    def token_weights(self, text: str) -> list[float]:
        """The multiplier of each of those rows."""
        return [weight for rows, weights in self._rows(text) for weight in weights[: len(rows)]]

    def _rows(self, text: str) -> Iterator[tuple[Tensor, list[float]]]:
        """The rows (n, width) that each token or embedding is looked up as, with the multipliers from there on."""
        for chunk in self.engine.tokenize_line(text)[0]:
            tokens, fixes = chunk.tokens[1:-1], {fix.offset: fix.embedding for fix in chunk.fixes}
            end = _filled(chunk, self.engine.id_end)
            place = 0
            while place < end:
                rows = self.table[[tokens[place]]]
                if place in fixes:
                    rows = _of(fixes[place].vec, self.key).to(self.table)
                yield rows, [float(multiplier) for multiplier in chunk.multipliers[1 + place : -1]]
                place += len(rows)

    def batches(self, templates: Sequence[str], count: int) -> list[list[int]]:
        """The places of templates that `encode` may have at once, with that many vectors."""
        return batches([self._layout(template, count)[1] for template in templates], weighed_together=True)

    def encode(self, vectors: Tensor, templates: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Contexts (B, L, C) of B templates with vectors (N, width) in their slots, and SDXL's pooled states (B, P).

        Differentiable in the vectors; in fp32, whatever the encoder computes in. Where a gradient is asked for, that
        is fp32 too.
        """
        if vectors.requires_grad and self.exact is not None and self.exact.needed and self.exact.fits():
            with self.exact.instead():
                return self._encode(vectors, templates)
        half = self.exact is not None and self.table.dtype == torch.float16
        scale = GradientScale() if half and vectors.requires_grad else None
        with self.autocast():
            return self._encode(vectors, templates, scale)

    def _encode(
        self, vectors: Tensor, templates: Sequence[str], scale: GradientScale | None = None
    ) -> tuple[Tensor, Tensor | None]:
        layouts = [self._layout(template, len(vectors)) for template in templates]
        entering = scale.leave(vectors) if scale else vectors
        lives = [live for in_template, _ in layouts for live in in_template]
        for live in lives:
            live.vec = entering[live.rows]
        encoded = []
        for chunks in zip(*(chunks for _, chunks in layouts), strict=True):
            self.holder.fixes = [chunk.fixes for chunk in chunks]
            tokens, multipliers = [chunk.tokens for chunk in chunks], [chunk.multipliers for chunk in chunks]
            encoded.append(self.engine.process_tokens(tokens, multipliers))
        for live in lives:
            live.vec = None
        pooled: Tensor | None = getattr(encoded[0], "pooled", None)
        context = torch.cat([z.float() for z in encoded], dim=1)  # (B, L, C)
        if pooled is None:
            return (scale.enter(context) if scale else context), None
        # both leave through one door, for a scale holds for one pass
        joined = torch.cat([context.flatten(), pooled.float().flatten()])
        joined = scale.enter(joined) if scale else joined
        return joined[: context.numel()].view_as(context), joined[context.numel() :].view_as(pooled)

    def _layout(self, template: str, count: int) -> tuple[list[Live], list[Any]]:
        """The template's chunks with places kept for `count` vectors; read once, training asks for them always."""
        key = template, count
        if key not in self._layouts:
            slots = {slot[0]: _rows_of(slot, count) for slot in SLOT.finditer(template)}
            lives = [
                Live(len(rows), torch.empty(len(rows), 0), slice(rows.start, rows.stop))  # an early WebUI counts them
                for rows in slots.values()
            ]
            mark = marks(template, slots)
            with _standing_for(self.engine, self.names, lives, "".join(mark.values())):
                marked = SLOT.sub(lambda slot: mark[slot[0]], template)
                self._layouts[key] = lives, self.engine.tokenize_line(marked)[0]
        return self._layouts[key]


def _rows_of(slot: re.Match[str], count: int) -> range:
    """Which of so many vectors stand in a slot."""
    return range(count)[int(slot[1]) : int(slot[2])] if slot[1] else range(count)


@contextmanager
def _standing_for(engine: Any, names: Any, lives: Sequence[Live], standing: str) -> Iterator[None]:
    """Lets the characters of `standing` in a text, one for each, take the places of the live vectors, as the names of
    embeddings would.

    The text around a mark is read piece by piece, so that nothing is glued to it.
    """
    tokenize, find = engine.tokenize, names.find_embedding_at_position
    between = re.compile(f"([{standing}])" if standing else "(?!)")

    def marked(texts: list[str]) -> list[list[int]]:
        pieces = [between.split(text) for text in texts]  # text and marks in turn
        tokens = iter(tokenize([text for split in pieces for text in split[::2]]))
        return [
            [
                token
                for number, piece in enumerate(split)
                for token in ([MARKED - standing.index(piece)] if number % 2 else next(tokens))
            ]
            for split in pieces
        ]

    def embedding_at(tokens: list[int], offset: int) -> Any:
        token = tokens[offset]
        return (lives[MARKED - token], 1) if token <= MARKED else find(tokens, offset)

    with ExitStack() as stack:
        stack.enter_context(replaced(engine, "tokenize", marked))
        stack.enter_context(replaced(names, "find_embedding_at_position", embedding_at))
        yield


@contextmanager
def without_weights(engine: Any) -> Iterator[None]:
    """Every multiplier 1: the same tokens in the same chunks."""
    process = engine.process_tokens

    def plain(tokens: list[list[int]], multipliers: list[list[float]]) -> Any:
        return process(tokens, [[1.0] * len(row) for row in multipliers])

    with replaced(engine, "process_tokens", plain):
        yield


def _filled(chunk: Any, end: int) -> int:
    """How many of a chunk's places are taken: what follows is end marks up to its own end mark."""
    tokens = chunk.tokens[1:-1]
    last = max((fix.offset + int(fix.embedding.vectors) for fix in chunk.fixes), default=0)
    while len(tokens) > last and tokens[-1] == end:
        tokens = tokens[:-1]
    return len(tokens)


def _of(vec: Any, key: str) -> Tensor:
    vectors: Tensor = vec[key] if isinstance(vec, dict) else vec
    return vectors
