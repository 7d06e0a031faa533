"""Small models of each family with random weights, as modules and as single files of the original layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from hosts.standalone import ldm_layout
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from embedding_estimate.model.host import Family

VOCABULARY = 600
FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl")


@dataclass
class Original:
    """Modules of a family with random weights, and the same as a single file."""

    unet: Any
    vae: Any
    encoders: dict[str, Any]
    path: Path


def text_config(width: int, layers: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=width,
        hidden_act=activation,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
    )


@torch.no_grad()
def randomised(module: Any) -> Any:
    """Random biases and norms as well: at their initial 0 and 1, mistaken ones would not be seen."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def make(family: Family, path: Path) -> Original:
    widths = (32, 64) if family == "sd1" else (64, 128)
    heads = {"sd1": 8, "sd2": (1, 2), "sdxl": (1, 2)}[family]
    inner_first = family != "sdxl"  # SDXL has no attention on its outermost level, and more on the inner ones
    kinds = ("CrossAttn{}Block2D", "{}Block2D") if inner_first else ("{}Block2D", "CrossAttn{}Block2D")
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 128 + 6 * 8,
    }
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=widths,
        layers_per_block=2,
        down_block_types=tuple(kind.format("Down") for kind in kinds),
        up_block_types=tuple(kind.format("Up") for kind in reversed(kinds)),
        cross_attention_dim=192 if family == "sdxl" else 64,
        attention_head_dim=heads,
        transformer_layers_per_block=(1, 2) if family == "sdxl" else 1,
        use_linear_projection=family != "sd1",
        **(added if family == "sdxl" else {}),
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
    )
    encoders: dict[str, Any]
    if family == "sd1":
        encoders = {"clip_l": CLIPTextModel(text_config(64, 2, "quick_gelu"))}
    elif family == "sd2":
        encoders = {"clip_h": CLIPTextModel(text_config(64, 2, "gelu"))}
    else:
        encoders = {
            "clip_l": CLIPTextModel(text_config(64, 2, "quick_gelu")),
            "clip_g": CLIPTextModelWithProjection(text_config(128, 2, "gelu")),
        }
    for module in (unet, vae, *encoders.values()):
        randomised(module)
    tensors = ldm_layout.unet(unet.config, unet.state_dict()) | ldm_layout.vae(vae.config, vae.state_dict())
    prefixes = {
        "sd1": ["cond_stage_model.transformer."],
        "sd2": ["cond_stage_model.model."],
        "sdxl": ["conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."],
    }
    for (key, encoder), prefix in zip(encoders.items(), prefixes[family], strict=True):
        if key == "clip_l":
            tensors |= ldm_layout.clip(encoder.state_dict(), prefix)
        else:
            tensors |= ldm_layout.open_clip(encoder.state_dict(), prefix, with_last_layer=key == "clip_g")
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return Original(unet, vae, encoders, path)
