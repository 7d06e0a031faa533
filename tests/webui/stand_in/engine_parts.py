"""What the text engines of all WebUIs do alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from modules import shared
from torch import Tensor

from embedding_estimate.hosts.standalone import grammar


class Fix(NamedTuple):
    offset: int
    embedding: Any


def chunked(line: str, engine: Any, database: Any) -> tuple[list[Any], int]:
    """The chunks of a prompt, and its number of tokens."""
    length = engine.chunk_length
    chunks, count = [SimpleNamespace(tokens=[], multipliers=[], fixes=[])], 0
    for segment in grammar.emphasise(line):
        [tokens] = engine.tokenize([segment.text])
        place = 0
        while place < len(tokens):
            embedding, taken = database.find_embedding_at_position(tokens, place)
            new = [0] * embedding.vectors if embedding else [tokens[place]]
            if len(chunks[-1].tokens) + len(new) > length:
                chunks.append(SimpleNamespace(tokens=[], multipliers=[], fixes=[]))
            if embedding:
                chunks[-1].fixes.append(Fix(len(chunks[-1].tokens), embedding))
            chunks[-1].tokens += new
            chunks[-1].multipliers += [segment.weight] * len(new)
            place += taken or 1
            count += len(new)
    for chunk in chunks:
        missing = length - len(chunk.tokens)
        chunk.tokens = [engine.id_start, *chunk.tokens, *[engine.id_end] * (missing + 1)]
        chunk.multipliers = [1.0, *chunk.multipliers, *[1.0] * (missing + 1)]
    return chunks, count


def padded(tokens: list[list[int]], engine: Any) -> Tensor:
    """Ids (B, T) with the engine's padding behind the first end mark."""
    ends = [row.index(engine.id_end) + 1 for row in tokens]
    rows = [row[:end] + [engine.id_pad] * (len(row) - end) for row, end in zip(tokens, ends, strict=True)]
    return torch.tensor(rows, device=shared.device)


def spliced(rows: Tensor, batch_fixes: Any, key: str) -> Tensor:
    """Token embeddings (B, T, C) with vectors put over them as the holder of fixes says."""

    def with_vectors(row: Tensor, fixes: Any) -> Tensor:
        for offset, embedding in fixes:
            vec = embedding.vec[key] if isinstance(embedding.vec, dict) else embedding.vec
            row = torch.cat([row[: offset + 1], vec.to(row.dtype), row[offset + 1 + len(vec) :]])[: len(row)]
        return row

    batch = zip(rows, batch_fixes or [()] * len(rows), strict=True)
    return torch.stack([with_vectors(row, fixes) for row, fixes in batch])


def hidden(transformer: Any, ids: Tensor, skip: int, *, norm: bool) -> tuple[Tensor, Tensor | None]:
    """The hidden states (B, T, C) before the last `skip` layers but one, and the pooled ones (B, P) or None."""
    output = transformer(input_ids=ids, output_hidden_states=True)
    z = output.hidden_states[-skip]
    if norm:
        z = getattr(transformer, "text_model", transformer).final_layer_norm(z)
    return z, getattr(output, "text_embeds", None)
