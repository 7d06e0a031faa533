"""A tiny model in the shape that the WebUI gives to what it has loaded; `put_in` puts it into `modules.shared`."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from engine_parts import chunked, hidden, padded, spliced
from modules import shared
from modules.sd_hijack import model_hijack
from torch import Tensor, nn

from embedding_estimate.hosts.standalone.emphasis import by_name
from embedding_estimate.hosts.standalone.loading import LoadedModel, TextEncoder

SIZES = 6  # numbers that SDXL is told of the picture


class EmbeddingsWithFixes(nn.Module):
    """The token embedding, with vectors put over its rows as the holder `fixes` says."""

    def __init__(self, wrapped: nn.Module, key: str):
        super().__init__()
        self.wrapped, self.textual_inversion_key = wrapped, key

    def forward(self, ids: Tensor) -> Tensor:
        fixes, model_hijack.fixes = model_hijack.fixes, None
        return spliced(self.wrapped(ids), fixes, self.textual_inversion_key)


class FrozenCLIPEmbedder(nn.Module):
    def __init__(self, encoder: TextEncoder, key: str):
        super().__init__()
        self.transformer, self.tokenizer = encoder.model, encoder.tokenizer
        embedding = encoder.model.get_input_embeddings()
        encoder.model.set_input_embeddings(EmbeddingsWithFixes(embedding, key))


class FrozenOpenCLIPEmbedder(FrozenCLIPEmbedder):
    """SD2's and SDXL's second."""


class Engine(nn.Module):
    """What the WebUI wraps around a CLIP."""

    def __init__(self, encoder: TextEncoder, key: str, sdxl: bool):
        super().__init__()
        self.hijack, self.chunk_length, self.sdxl = model_hijack, 75, sdxl
        self.pooled = key == "clip_g"
        self.wrapped = (FrozenCLIPEmbedder if key == "clip_l" else FrozenOpenCLIPEmbedder)(encoder, key)
        self.id_start, self.id_end = encoder.tokenizer.bos_token_id, encoder.tokenizer.eos_token_id
        self.id_pad = self.id_end if key == "clip_l" else 0

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return [list(self.wrapped.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]

    def tokenize_line(self, line: str) -> tuple[list[Any], int]:
        return chunked(line, self, self.hijack.embedding_db)

    def process_tokens(self, tokens: list[list[int]], multipliers: list[list[float]]) -> Tensor:
        skip = 2 if self.sdxl else shared.opts.CLIP_stop_at_last_layers
        z, pooled = hidden(self.wrapped.transformer, padded(tokens, self), skip, norm=not self.sdxl)
        z = by_name(shared.opts.emphasis)(z, torch.tensor(multipliers, device=shared.device))  # (B, T, C)
        if self.pooled:
            z.pooled = pooled  # (B, P)
        return z

    def forward(self, texts: list[str]) -> tuple[Tensor, Tensor | None]:
        """Context (B, L, C) and the pooled state (B, P) or None."""
        batch = [self.tokenize_line(text)[0] for text in texts]
        columns = []
        for number in range(max(map(len, batch))):
            empty = self.tokenize_line("")[0][0]
            chunks = [text[number] if number < len(text) else empty for text in batch]
            model_hijack.fixes = [chunk.fixes for chunk in chunks]
            columns.append(self.process_tokens([c.tokens for c in chunks], [c.multipliers for c in chunks]))
        return torch.cat(columns, dim=1), getattr(columns[0], "pooled", None)


class SdModel(nn.Module):
    """SD1 and SD2 have `cond_stage_model`; SDXL has a `conditioner` of several, and goes by both names."""

    def __init__(self, loaded: LoadedModel):
        super().__init__()
        sdxl = loaded.family == "sdxl"
        found = [Engine(encoder, key, sdxl) for key, encoder in loaded.text_encoders.items()]
        if sdxl:
            self.conditioner = nn.Module()
            self.conditioner.embedders = nn.ModuleList(found)
        self.cond_stage_model = found[0]
        self.engines = found
        self.model = nn.Module()
        self.model.diffusion_model, self.model.conditioning_key = loaded.unet, "crossattn"
        self.first_stage_model = loaded.vae
        self.is_sdxl, self.cond_stage_key = sdxl, "txt"
        self.parameterization = "v" if loaded.prediction == "v" else "eps"
        self.alphas_cumprod = loaded.alphas_cumprod.float().to(shared.device)
        self.image_size = loaded.sample_size
        self.sd_checkpoint_info = SimpleNamespace(name_for_extra=loaded.name, shorthash=loaded.hash)

    def get_learned_conditioning(self, texts: Any) -> Any:
        encoded = [engine(texts) for engine in self.engines]
        context = torch.cat([z for z, _ in encoded], dim=2)  # (B, L, C)
        if not self.is_sdxl:
            return context
        pooled = encoded[-1][1]
        if texts.is_negative_prompt and not any(texts):
            context, pooled = torch.zeros_like(context), torch.zeros_like(pooled)
        size = pooled.new_tensor([[texts.height, texts.width, 0, 0, texts.height, texts.width]])
        return {"crossattn": context, "vector": torch.cat([pooled, size.expand(len(texts), -1)], dim=1)}

    def apply_model(self, x: Tensor, time: Tensor, cond: dict[str, Any]) -> Tensor:
        added = None
        if self.is_sdxl:
            added = {"text_embeds": cond["vector"][:, :-SIZES], "time_ids": cond["vector"][:, -SIZES:]}
        context = cond["crossattn"] if self.is_sdxl else cond["c_crossattn"][0]
        output: Tensor = self.model.diffusion_model(
            x, time, encoder_hidden_states=context, added_cond_kwargs=added, return_dict=False
        )[0]
        return output

    def decode_first_stage(self, latents: Tensor) -> Tensor:
        pictures: Tensor = self.first_stage_model.decode(
            latents / self.first_stage_model.config.scaling_factor, return_dict=False
        )[0]
        return pictures


def copied(loaded: LoadedModel) -> LoadedModel:
    """On the stand-in's device, for who changes more than is given back."""

    def there(module: nn.Module) -> nn.Module:
        return deepcopy(module).to(shared.device)

    encoders = {key: replace(part, model=there(part.model)) for key, part in loaded.text_encoders.items()}
    return replace(loaded, text_encoders=encoders, unet=there(loaded.unet), vae=there(loaded.vae))


def put_in(loaded: LoadedModel) -> SdModel:
    """Makes it the model that is loaded, with copies of its text encoders, which the WebUI rebuilds."""
    encoders = {key: replace(part, model=deepcopy(part.model)) for key, part in loaded.text_encoders.items()}
    shared.sd_model = SdModel(replace(loaded, text_encoders=encoders))
    return shared.sd_model
