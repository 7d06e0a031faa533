"""Stable Diffusion's real shapes with random weights: as slow and as large as the real ones, and as good as nothing.

The VAE is a stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from embedding_estimate.demo import demo_model_path
from embedding_estimate.hosts.standalone.loading import PADDING, LoadedModel, TextEncoder
from embedding_estimate.model.contexts import NEGATIVE_PROMPTS, PROMPTS
from embedding_estimate.model.host import Family


def random_sd15(device: str = "cpu", dtype: torch.dtype | None = None, seed: int = 0) -> LoadedModel:
    """860 million random weights in the U-Net, in `dtype`: fp16 on CUDA, otherwise fp32."""

    def modules(dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
        unet = _unet(
            dtype,
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=768,
            attention_head_dim=8,
            sample_size=64,
        )
        return unet, {"clip_l": _clip_l()}

    return _model("random-sd15", "sd1", modules, device, dtype, seed)


def random_sdxl(device: str = "cpu", dtype: torch.dtype | None = None, seed: int = 0) -> LoadedModel:
    """2.6 billion random weights in the U-Net, in `dtype`: fp16 on CUDA, otherwise bf16, to fit into 16 GB."""

    def modules(dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
        unet = _unet(
            dtype,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            cross_attention_dim=2048,
            attention_head_dim=(5, 10, 20),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
            sample_size=128,
        )
        return unet, {"clip_l": _clip_l(), "clip_g": _clip_g()}

    half = torch.float16 if torch.device(device).type == "cuda" else torch.bfloat16
    return _model("random-sdxl", "sdxl", modules, device, dtype or half, seed)


def small_sd1(device: str = "cpu", dtype: torch.dtype | None = None, seed: int = 0) -> LoadedModel:
    """SD1's kind with 22 million random weights in the U-Net, for what is to be seen on a CPU."""

    def modules(dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
        unet = _unet(
            dtype,
            block_out_channels=(64, 128, 192, 192),
            cross_attention_dim=128,
            attention_head_dim=4,
            sample_size=32,
        )
        return unet, {"clip_l": _text_encoder(CLIPTextModel, width=128, layers=4, heads=4, activation="quick_gelu")}

    return _model("small-sd1", "sd1", modules, device, dtype, seed)


def small_sdxl(device: str = "cpu", dtype: torch.dtype | None = None, seed: int = 0) -> LoadedModel:
    """SDXL's kind with 18 million random weights in the U-Net: two encoders, the pooled state and the size."""

    def modules(dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
        unet = _unet(
            dtype,
            block_out_channels=(64, 128, 192),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2),
            cross_attention_dim=128 + 192,
            attention_head_dim=(1, 2, 3),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=6 * 32 + 192,
            sample_size=32,
        )
        return unet, {
            "clip_l": _text_encoder(CLIPTextModel, width=128, layers=4, heads=4, activation="quick_gelu"),
            "clip_g": _text_encoder(CLIPTextModelWithProjection, width=192, layers=6, heads=6, activation="gelu"),
        }

    return _model("small-sdxl", "sdxl", modules, device, dtype, seed)


SHAPES: Mapping[str, Callable[[str], LoadedModel]] = {"sd15": random_sd15, "sdxl": random_sdxl}
"""name -> device -> model, in the real shapes"""
SMALL: Mapping[str, Callable[[str], LoadedModel]] = {"small-sd1": small_sd1, "small-sdxl": small_sdxl}


def _model(
    name: str,
    family: Family,
    modules: Callable[[torch.dtype], tuple[Any, dict[str, Any]]],
    device: str,
    dtype: torch.dtype | None,
    seed: int,
) -> LoadedModel:
    place = torch.device(device)
    dtype = dtype or (torch.float16 if place.type == "cuda" else torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, encoders = modules(dtype)
        vae = AutoencoderKL(
            block_out_channels=(2,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=1,
        )
    for module in (unet, vae, *encoders.values()):
        module.eval().to(place)
    tokenizer = str(demo_model_path() / "tokenizer")
    return LoadedModel(
        name=name,
        hash="",
        family=family,
        prediction="epsilon",
        text_encoders={
            key: TextEncoder(encoder, CLIPTokenizer.from_pretrained(tokenizer, pad_token=PADDING[key]))
            for key, encoder in encoders.items()
        },
        unet=unet,
        vae=vae,
        alphas_cumprod=_alphas_cumprod(),
        sample_size=unet.config.sample_size,
        contexts={"prompt": PROMPTS, "negative": NEGATIVE_PROMPTS},
        device=place,
        dtype=dtype,
    )


def _unet(dtype: torch.dtype, **config: Any) -> Any:
    """Made in its own precision: a copy in fp32 would not fit beside it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return UNet2DConditionModel(layers_per_block=2, **config)
    finally:
        torch.set_default_dtype(before)


def _clip_l() -> Any:
    """CLIP ViT-L/14's."""
    return _text_encoder(CLIPTextModel, width=768, layers=12, heads=12, activation="quick_gelu")


def _clip_g() -> Any:
    """OpenCLIP ViT-bigG/14's."""
    return _text_encoder(CLIPTextModelWithProjection, width=1280, layers=32, heads=20, activation="gelu")


def _text_encoder(kind: Any, *, width: int, layers: int, heads: int, activation: str) -> Any:
    """Its norms get a bias: emphasis divides by the context's mean, which would be about zero."""
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        projection_dim=width,
        bos_token_id=49_406,
        eos_token_id=49_407,
    )
    encoder = kind(config)
    for module in encoder.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.constant_(module.bias, -0.1)
    return encoder


def _alphas_cumprod() -> Tensor:
    """SD1's and SDXL's noise schedule (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return (1 - betas).cumprod(0)
