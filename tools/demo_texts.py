"""What the U-Net is told of a caption: SD1's hidden states, or SDXL's of two encoders, a pooled state and sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from demo_captions import Phrase
from demo_text import CaptionCoder, Encoder, EncoderShape, read
from demo_world import PICTURE_SIZE

SIZE_IDS = (PICTURE_SIZE, PICTURE_SIZE, 0, 0, PICTURE_SIZE, PICTURE_SIZE)  # original, cropped at, wanted


@dataclass(frozen=True)
class Reader:
    """A trained text encoder and the coder of its captions."""

    shape: EncoderShape
    encoder: Encoder
    coder: CaptionCoder


class Texts:
    """The text side of a model, of one encoder (SD1) or of several, the last of them pooled (SDXL)."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = list(readers)
        self.width = sum(reader.shape.width for reader in readers)  # of the context
        last = self.readers[-1].shape
        self.pooled_width = last.width if last.pooled else 0

    def encode(self, pieces: list[Phrase | list[int]]) -> tuple[np.ndarray, int]:
        """Token ids (encoders, 77) of a caption in pieces, and the position of its end token."""
        coded = [reader.coder.encode(pieces) for reader in self.readers]
        return np.stack([tokens for tokens, _, _ in coded]), coded[0][2]

    def told(self, tokens: torch.Tensor, kept: torch.Tensor) -> dict[str, Any]:
        """The U-Net's arguments for token ids (B, encoders, 77).

        SDXL's are zero where they are not kept: (B, 2), of the context and of the pooled state. SD1 keeps all.
        """
        each = zip(self.readers, tokens.unbind(1), strict=True)
        states, pooled = zip(*(read(reader.encoder, reader.shape, ids) for reader, ids in each), strict=True)
        context = torch.cat(states, dim=-1)  # (B, 77, width)
        if pooled[-1] is None:
            return {"encoder_hidden_states": context}
        kept = kept.to(context)
        sizes = context.new_tensor(SIZE_IDS).expand(len(context), -1)  # (B, 6)
        return {
            "encoder_hidden_states": context * kept[:, :1, None],
            "added_cond_kwargs": {"text_embeds": pooled[-1] * kept[:, 1:], "time_ids": sizes},
        }
