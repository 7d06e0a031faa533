"""Tiny text encoders whose weights are the same on every machine and under every version of transformers."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from shaking import shaken
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from embedding_estimate.demo import demo_model_path

LAYERS = 3


@cache
def encoder(width: int, seed: int, projection: int | None = None, activation: str = "quick_gelu") -> Any:
    """A CLIP text model; every parameter is drawn by its name's order, scaled to keep activations near 1."""
    config = CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projection or width,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=49_406,
        eos_token_id=49_407,
    )
    model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    named = {name.removeprefix("text_model."): parameter for name, parameter in model.named_parameters()}
    for name in sorted(named):
        parameter = named[name]
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.data = (1 + 0.1 * drawn if "norm" in name and name.endswith("weight") else 0.3 * drawn) + (
            0.2 if name.endswith("bias") or "position" in name else 0
        )
        parameter.requires_grad_(False)
    return model


@cache
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(demo_model_path() / "tokenizer")


def loaded(family: str, clip: CLIPTokenizer, dtype: torch.dtype = torch.float32, *, golden: bool = False) -> Any:
    """What the conditioner takes of a loaded model. The golden numbers are of the tests' own seeds alone."""
    first, second, third = (1, 2, 3) if golden else map(shaken, (1, 2, 3))
    models = {
        "sd1": {"clip_l": encoder(16, first)},
        "sd2": {"clip_h": encoder(16, second, activation="gelu")},
        "sdxl": {"clip_l": encoder(16, first), "clip_g": encoder(24, third, projection=20, activation="gelu")},
    }[family]
    parts = {key: SimpleNamespace(model=deepcopy(model).to(dtype), tokenizer=clip) for key, model in models.items()}
    return SimpleNamespace(family=family, text_encoders=parts)


def vectors(widths: dict[str, int], count: int, seed: int, *, golden: bool = False) -> dict[str, Tensor]:
    """Vectors (count, width) by encoder."""
    generator = torch.Generator().manual_seed(seed if golden else shaken(seed))
    return {key: torch.randn(count, width, generator=generator) for key, width in widths.items()}


def projected(tensor: Tensor, numbers: int = 6) -> list[float]:
    """A tensor's products with fixed random directions, of about its own scale."""
    generator = torch.Generator().manual_seed(tensor.numel())
    directions = torch.randn(numbers, tensor.numel(), generator=generator, dtype=torch.float64)
    flat = tensor.detach().double().flatten()
    products: list[float] = (directions @ flat / tensor.numel() ** 0.5).tolist()
    return products


def agree(ours: Sequence[float], theirs: Sequence[float], tolerance: float = 1e-4) -> bool:
    scale = max(map(abs, theirs))
    return len(ours) == len(theirs) and all(abs(a - b) <= tolerance * scale for a, b in zip(ours, theirs, strict=True))
