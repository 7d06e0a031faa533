"""Forge's text engine. What it reads of the settings, it reads when it is called for an image."""

from __future__ import annotations

from typing import Any

import torch
from embedding_files import Names, described
from engine_parts import chunked, hidden, padded, spliced
from modules import shared
from torch import Tensor, nn

from backend.text_processing import emphasis

last_extra_generation_params: dict[str, str] = {}


class EmbeddingDatabase(Names):
    """An engine's own."""

    def __init__(self, tokenize: Any, sdxl: bool):
        super().__init__()
        self.fixes: Any = None
        self.tokenize, self.sdxl = tokenize, sdxl

    def load_textual_inversion_embeddings(self) -> None:
        self.take(described(shared.cmd_opts.embeddings_dir), self.tokenize, self.sdxl)


class CLIPEmbeddingForTextualInversion(nn.Module):
    def __init__(self, wrapped: nn.Module, embeddings: EmbeddingDatabase, key: str):
        super().__init__()
        self.wrapped, self.embeddings, self.key = wrapped, embeddings, key
        self.weight = wrapped.weight

    def forward(self, ids: Tensor) -> Tensor:
        fixes, self.embeddings.fixes = self.embeddings.fixes, None
        return spliced(self.wrapped(ids), fixes, self.key)


class Transformer(nn.Module):
    """With a `text_model`, which transformers has given up since."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    @property
    def text_model(self) -> Any:
        return getattr(self.model, "text_model", self.model)

    def forward(self, **arguments: Any) -> Any:
        return self.model(**arguments)


class TextEncoder(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.transformer = Transformer(model)


class ClassicTextProcessingEngine:
    def __init__(self, text_encoder: TextEncoder, tokenizer: Any, key: str, sdxl: bool):
        self.text_encoder, self.tokenizer, self.embedding_key = text_encoder, tokenizer, key
        self.chunk_length = 75
        self.minimal_clip_skip = self.clip_skip = 2 if sdxl else 1
        self.return_pooled = key == "clip_g"
        self.final_layer_norm = not sdxl
        self.id_start, self.id_end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.id_pad = self.id_end if key == "clip_l" else 0
        self.embeddings = EmbeddingDatabase(self.tokenize, sdxl)
        self.embeddings.load_textual_inversion_embeddings()
        table: Any = text_encoder.transformer.text_model.embeddings
        table.token_embedding = CLIPEmbeddingForTextualInversion(table.token_embedding, self.embeddings, key)
        self.read_settings()

    def read_settings(self) -> None:
        self.emphasis = emphasis.get_current_option(shared.opts.emphasis)()

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def tokenize_line(self, line: str) -> tuple[list[Any], int]:
        return chunked(line, self, self.embeddings)

    def process_tokens(self, tokens: list[list[int]], multipliers: list[list[float]]) -> Tensor:
        skip = max(self.clip_skip, self.minimal_clip_skip)
        transformer = self.text_encoder.transformer
        z, pooled = hidden(transformer, padded(tokens, self), skip, norm=self.final_layer_norm)
        z = self.emphasis.applied(z, multipliers)
        if self.return_pooled:
            z.pooled = pooled
        return z

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor | None]:
        self.read_settings()
        batch = [self.tokenize_line(text)[0] for text in texts]
        [empty] = self.tokenize_line("")[0]
        columns = []
        for number in range(max(map(len, batch))):
            chunks = [text[number] if number < len(text) else empty for text in batch]
            self.embeddings.fixes = [chunk.fixes for chunk in chunks]
            columns.append(self.process_tokens([c.tokens for c in chunks], [c.multipliers for c in chunks]))
        if self.emphasis.name != "Original":
            infotext()["Emphasis"] = self.emphasis.name
        return torch.hstack(columns), getattr(columns[0], "pooled", None)


class ClipEngine(ClassicTextProcessingEngine):
    """Neo's, which reads the mode of the emphasis whenever it applies it."""

    def read_settings(self) -> None:
        """There is nothing to keep."""

    @property
    def emphasis(self) -> Any:
        return emphasis.get_current_option(shared.opts.emphasis)()


def infotext() -> dict[str, str]:
    """What is collected for the infotext of the next image."""
    from backend.args import dynamic_args

    collected: dict[str, str] = getattr(dynamic_args, "last_extra_generation_params", last_extra_generation_params)
    return collected
