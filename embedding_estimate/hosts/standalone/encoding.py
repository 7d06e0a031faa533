"""From chunks of tokens to conditionings: runs the text encoders and applies the weights.

`conditioner` lays the chunks out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from embedding_estimate.hosts.standalone import chunks
from embedding_estimate.hosts.standalone.chunks import Chunk
from embedding_estimate.hosts.standalone.emphasis import Emphasis
from embedding_estimate.hosts.standalone.text_encoder import ClipEncoder
from embedding_estimate.model.host import Conditioning

Layout = Mapping[ClipEncoder, Sequence[Sequence[Chunk]]]  # by encoder: the chunks of each different text of a batch


def conditionings(
    texts: Sequence[str], layout: Layout, weigh: Emphasis, *, width: int, height: int, negative: bool
) -> list[Conditioning]:
    """One conditioning for each of B texts, encoded as one batch.

    A text that occurs several times in the batch is encoded once; emphasis still sees it as often as it occurs.

    Args:
        texts: B texts. An SDXL batch of empty negative ones gets zeros, as in the WebUI.
        layout: the chunks of each different text, in the order in which these first occur.
        weigh: applies the weights to the hidden states.
        width: of the picture, in pixels. SDXL's conditioning holds it.
        height: likewise.
        negative: whether these are negative prompts.
    """
    different = list(dict.fromkeys(texts))
    places = tuple(different.index(text) for text in texts)
    count = max(len(text) for batch in layout.values() for text in batch)
    encoded = [_encoded(encoder, batch, places, count, weigh) for encoder, batch in layout.items()]
    context = torch.cat([z for z, _ in encoded], dim=2)  # (B, L, C)
    pooled = encoded[-1][1]  # (B, P)
    if pooled is None:
        return [Conditioning(row) for row in _rows(context)]
    if negative and not any(texts):
        context, pooled = torch.zeros_like(context), torch.zeros_like(pooled)
    first = next(iter(layout))
    size = first.constant((height, width, 0, 0, height, width), pooled.dtype, pooled.device)
    vector = torch.cat([pooled, size.expand(len(texts), -1)], dim=1)  # (B, P + 6)
    return [Conditioning(*pair) for pair in zip(_rows(context), _rows(vector), strict=True)]


def lengthened(conditioning: Conditioning, length: int) -> Conditioning:
    """The conditioning with its last row repeated until its context has `length` rows."""
    context = conditioning.context  # (1, L, C)
    missing = length - context.shape[1]
    return Conditioning(torch.cat([context, context[:, -1:].expand(-1, missing, -1)], dim=1), conditioning.vector)


def _encoded(
    encoder: ClipEncoder,
    batch: Sequence[Sequence[Chunk]],
    places: tuple[int, ...],
    count: int,
    weigh: Emphasis,
) -> tuple[Tensor, Tensor | None]:
    """Context (B, L, C) and the first chunks' pooled states (B, P) or None, from `count` chunks a prompt.

    `places` says where in the batch each of B prompts stands. A prompt with fewer chunks gets empty ones.
    """
    index = encoder.constant(places, torch.int64, encoder.table.device)  # (B,)
    columns, first = [], None
    for number in range(count):
        rows = [prompt[number] if number < len(prompt) else chunks.empty(encoder.marks) for prompt in batch]
        z, pooled = encoder.encode(rows)
        exact = torch.promote_types(z.dtype, torch.float32)
        multipliers = encoder.constant(tuple(tuple(row.multipliers) for row in rows), exact, z.device)  # (b, T)
        columns.append(weigh(z[index].to(exact), multipliers[index]).to(z.dtype))
        if number == 0 and pooled is not None:
            first = pooled[index]
    return torch.cat(columns, dim=1), first


def _rows(batch: Tensor) -> list[Tensor]:
    """The entries of a batch, each with a batch dimension of 1."""
    return [batch[row : row + 1] for row in range(len(batch))]
