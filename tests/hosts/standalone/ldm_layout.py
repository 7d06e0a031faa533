"""Writes diffusers' and transformers' modules under the names of the original code: the way back of `ldm.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def unet(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A U-Net's tensors (diffusers) under their names in `model.diffusion_model`."""
    return {f"model.diffusion_model.{_unet_name(config, key)}": value for key, value in state.items()}


def _unet_name(config: Mapping[str, Any], key: str) -> str:
    for ours, theirs in OUTER.items():
        if key.startswith(f"{ours}."):
            return theirs + key.removeprefix(ours)
    layers = config["layers_per_block"]
    part, *rest = key.split(".")
    if part == "mid_block":
        kind, index, *inner = rest
        place = 1 if kind == "attentions" else 2 * int(index)
        return f"middle_block.{place}.{_inner(kind, inner)}"
    level, kind, index, *inner = rest
    if part == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{(int(level) + 1) * (layers + 1)}.0.op.{inner[-1]}"
        place = 1 + int(level) * (layers + 1) + int(index)
        return f"input_blocks.{place}.{int(kind == 'attentions')}.{_inner(kind, inner)}"
    place = int(level) * (layers + 1) + int(index)
    if kind == "upsamplers":
        attends = config["up_block_types"][int(level)].startswith("CrossAttn")
        return f"output_blocks.{place + layers}.{1 + attends}.conv.{inner[-1]}"
    return f"output_blocks.{place}.{int(kind == 'attentions')}.{_inner(kind, inner)}"


def _inner(kind: str, inner: list[str]) -> str:
    name = ".".join(inner)
    if kind == "resnets":
        for ours, theirs in RESNET.items():
            name = name.replace(ours, theirs)
    return name


def vae(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An autoencoder's tensors (diffusers) under their names in `first_stage_model`."""
    last = len(config["block_out_channels"]) - 1
    named = {}
    for key, value in state.items():
        half, _, name = key.partition(".")
        if half not in ("encoder", "decoder"):
            named[f"first_stage_model.{key}"] = value
            continue
        if name.startswith("mid_block.attentions.0."):
            name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            name = name.replace("to_out.0", "proj_out").replace("to_", "")
            value = value[:, :, None, None] if value.ndim == 2 else value  # a 1x1 convolution there
        name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        for level in range(last + 1):
            name = name.replace(f"down_blocks.{level}.resnets", f"down.{level}.block")
            name = name.replace(f"down_blocks.{level}.downsamplers.0", f"down.{level}.downsample")
            name = name.replace(f"up_blocks.{level}.resnets", f"up.{last - level}.block")
            name = name.replace(f"up_blocks.{level}.upsamplers.0", f"up.{last - level}.upsample")
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        named[f"first_stage_model.{half}.{name}"] = value
    return named


def clip(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """OpenAI's text encoder: under the names it had in older versions of transformers."""
    return {f"{prefix}text_model.{key.removeprefix('text_model.')}": value for key, value in state.items()}


def open_clip(state: Mapping[str, Tensor], prefix: str, *, with_last_layer: bool) -> dict[str, Tensor]:
    """A text encoder of open_clip, which has its query, key and value in one tensor and its projection transposed.

    Without the last layer, one is added: SD2's checkpoints have it though nothing reads it.
    """
    named: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("text_model.").replace("encoder.layers.", "transformer.resblocks.")
        name = name.replace("layer_norm1", "ln_1").replace("layer_norm2", "ln_2")
        name = name.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
        name = name.replace("final_layer_norm", "ln_final").replace("embeddings.token_embedding", "token_embedding")
        name = name.replace("embeddings.position_embedding.weight", "positional_embedding")
        name = name.replace("self_attn.out_proj", "attn.out_proj")
        if name == "text_projection.weight":
            name, value = "text_projection", value.T.contiguous()
        if ".self_attn.q_proj." in name:
            parts = [state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            name, value = name.replace("self_attn.q_proj.", "attn.in_proj_"), torch.cat(parts)
        if ".self_attn." not in name:
            named[prefix + name] = value
    if not with_last_layer:
        layers = {
            int(key.removeprefix(f"{prefix}transformer.resblocks.").split(".")[0]) for key in named if ".ln_1" in key
        }
        last, added = f"resblocks.{max(layers)}.", f"resblocks.{max(layers) + 1}."
        named |= {key.replace(last, added): torch.zeros_like(value) for key, value in named.items() if last in key}
        named[f"{prefix}text_projection"] = torch.zeros(2 * [len(named[f"{prefix}ln_final.weight"])])
    return named
