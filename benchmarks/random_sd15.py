"""Stable Diffusion 1.5's real shape with random weights: as slow as the real one, and as good as nothing."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from embedding_estimate.demo import demo_model_path
from embedding_estimate.hosts.standalone.loading import PADDING, LoadedModel, TextEncoder


def random_sd15(seed: int = 0) -> LoadedModel:
    """860 million random weights in the U-Net, on the CPU in fp32; the VAE is a stand-in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = _module(
            UNet2DConditionModel,
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=768,
            attention_head_dim=8,
            layers_per_block=2,
            sample_size=64,
        )
        encoder = _text_encoder()
        vae = _module(
            AutoencoderKL,
            block_out_channels=(2,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=1,
        )
    tokenizer = CLIPTokenizer.from_pretrained(str(demo_model_path() / "tokenizer"), pad_token=PADDING["clip_l"])
    return LoadedModel(
        name="random-sd15",
        hash="",
        family="sd1",
        prediction="epsilon",
        text_encoders={"clip_l": TextEncoder(encoder, tokenizer)},
        unet=unet,
        vae=vae,
        alphas_cumprod=_alphas_cumprod(),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def _module(kind: Any, *arguments: Any, **config: Any) -> Any:
    return kind(*arguments, **config).eval()


def _text_encoder() -> Any:
    """CLIP ViT-L/14's. Its norms get a bias: emphasis divides by the context's mean, which would be about zero."""
    config = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
        bos_token_id=49_406,
        eos_token_id=49_407,
    )
    encoder = _module(CLIPTextModel, config)
    for module in encoder.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.constant_(module.bias, -0.1)
    return encoder


def _alphas_cumprod() -> Tensor:
    """SD1's noise schedule (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return (1 - betas).cumprod(0)
