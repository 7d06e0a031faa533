"""Builds diffusers' and transformers' modules from a single-file checkpoint in the original code's layout ("LDM").

Nothing is downloaded. The architecture is read from the shapes of the tensors. What shapes do not show (the number of
heads, the scale of the latents) follows from the family, or from the `.yaml` beside the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.standalone.checkpoint import (
    CLIP,
    FIRST_OF_TWO,
    OPEN_CLIP,
    SECOND_OF_TWO,
    UNET,
    VAE,
    Checkpoint,
    Shapes,
)
from embedding_estimate.hosts.standalone.model_config import MOST_SCALE, whole

OPEN_CLIP_NAMES = {  # part of a name in open_clip -> in transformers
    "transformer.resblocks.": "text_model.encoder.layers.",
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.": ".self_attn.",
    "ln_final.": "text_model.final_layer_norm.",
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
}


def unet(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """diffusers' U-Net. Raises ModelError if tensors are missing or do not have the family's shapes."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config = _unet_config(checkpoint)
    tensors = {UNET + key: value for key, value in checkpoint.tensors_under(UNET).items()}
    state = convert_ldm_unet_checkpoint(tensors, config)
    return _filled(checkpoint.name, lambda: UNet2DConditionModel(**config), state, dtype)


def vae(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """diffusers' autoencoder; raises ModelError as `unet` does."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    config = _vae_config(checkpoint)
    tensors = {VAE + key: value for key, value in checkpoint.tensors_under(VAE).items()}
    state = convert_ldm_vae_checkpoint(tensors, config)
    return _filled(checkpoint.name, lambda: AutoencoderKL(**config), state, dtype)


def text_encoders(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    """transformers' text encoders by key, in fp32; raises ModelError as `unet` does."""
    if checkpoint.family == "sd1":
        return {"clip_l": _clip(checkpoint, CLIP)}
    if checkpoint.family == "sd2":
        return {"clip_h": _open_clip(checkpoint, OPEN_CLIP)}
    return {
        "clip_l": _clip(checkpoint, f"{FIRST_OF_TWO}transformer."),
        "clip_g": _open_clip(checkpoint, f"{SECOND_OF_TWO}model."),
    }


def _clip(checkpoint: Checkpoint, prefix: str) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    state = {  # the oldest files lack the inner prefix
        f"text_model.{key.removeprefix('text_model.')}": value
        for key, value in checkpoint.tensors_under(prefix).items()
    }
    config = CLIPTextConfig(**_text_config(checkpoint, state, "quick_gelu"))
    return _filled(checkpoint.name, lambda: CLIPTextModel(config), state, torch.float32)


def _open_clip(checkpoint: Checkpoint, prefix: str) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    state = _from_open_clip(checkpoint.tensors_under(prefix))
    config = CLIPTextConfig(**_text_config(checkpoint, state, "gelu"))
    if checkpoint.family == "sd2":  # reads the last layer but one, so the last is not needed
        config.num_hidden_layers -= 1
        return _filled(checkpoint.name, lambda: CLIPTextModel(config), state, torch.float32)
    return _filled(checkpoint.name, lambda: CLIPTextModelWithProjection(config), state, torch.float32)


def _from_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for key, value in tensors.items():
        for theirs, ours in OPEN_CLIP_NAMES.items():
            key = key.replace(theirs, ours)
        if key == "text_projection":
            state["text_projection.weight"] = value.T.contiguous()
        elif ".in_proj_" in key:
            for part, chunk in zip("qkv", value.chunk(3), strict=True):
                state[key.replace("in_proj_", f"{part}_proj.")] = chunk
        else:
            state[key] = value
    return state


def _unet_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """diffusers' configuration of the U-Net. Its `attention_head_dim` is the number of heads."""
    shapes = checkpoint.shapes_under(UNET)
    channels: list[list[int]] = [[]]  # of each residual block, per level
    depths = [0]  # transformer blocks in each attention of a level
    for index in count(1):
        if f"input_blocks.{index}.0.op.weight" in shapes:
            channels.append([])
            depths.append(0)
        elif f"input_blocks.{index}.0.in_layers.2.weight" in shapes:
            channels[-1].append(shapes[f"input_blocks.{index}.0.in_layers.2.weight"][0])
            depths[-1] = _depth(shapes, f"input_blocks.{index}.1.")
        else:
            break
    middle = _depth(shapes, "middle_block.1.")
    widths = [level[0] for level in channels]
    keys = next(shape for key, shape in shapes.items() if key.endswith("attn2.to_k.weight"))
    config = {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": len(channels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        "transformer_layers_per_block": [depth or 1 for depth in depths[:-1]] + [depths[-1] or middle],
        "cross_attention_dim": keys[1],
        "attention_head_dim": _heads(checkpoint, widths),
        "use_linear_projection": len(shapes["middle_block.1.proj_in.weight"]) == 2,
        "sample_size": 128 if checkpoint.family == "sdxl" else 64,
    }
    if checkpoint.family == "sdxl":
        added = shapes["label_emb.0.0.weight"][1]
        pooled = checkpoint.shapes[f"{SECOND_OF_TWO}model.text_projection"][1]
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": (added - pooled) // 6,
            "projection_class_embeddings_input_dim": added,
        }
    return config


def _depth(shapes: Shapes, prefix: str) -> int:
    start = f"{prefix}transformer_blocks."
    return len({key.removeprefix(start).split(".")[0] for key in shapes if key.startswith(start)})


def _heads(checkpoint: Checkpoint, widths: list[int]) -> int | list[int]:
    """SD1 has 8 heads everywhere, SD2 and SDXL have 64 channels to a head."""
    params = checkpoint.settings.get("unet_config", checkpoint.settings.get("network_config", {})).get("params", {})
    where = Path(checkpoint.name).with_suffix(".yaml").name
    given = {key: params[key] for key in ("num_heads", "num_head_channels") if params.get(key) not in (None, -1)}
    if "num_heads" in given:
        return whole(where, "num_heads", given["num_heads"], 1, min(widths))
    if "num_head_channels" in given:
        channels = whole(where, "num_head_channels", given["num_head_channels"], 1, min(widths))
        return [width // channels for width in widths]
    return 8 if checkpoint.family == "sd1" else [max(width // 64, 1) for width in widths]


def _vae_config(checkpoint: Checkpoint) -> dict[str, Any]:
    shapes = checkpoint.shapes_under(VAE)
    widths: list[int] = []
    while (first := f"encoder.down.{len(widths)}.block.0.conv1.weight") in shapes:
        widths.append(shapes[first][0])
    usual = 0.13025 if checkpoint.family == "sdxl" else 0.18215
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "layers_per_block": sum(f"encoder.down.0.block.{index}.conv1.weight" in shapes for index in range(9)),
        "scaling_factor": checkpoint.number("scale_factor", usual, below=MOST_SCALE),
    }


def _text_config(checkpoint: Checkpoint, state: Mapping[str, Tensor], activation: str) -> dict[str, Any]:
    """transformers' configuration of a text encoder with these tensors.

    CLIP has 64 channels per head, unless the .yaml names a folder with a configuration that says otherwise.
    """
    vocabulary, width = state["text_model.embeddings.token_embedding.weight"].shape
    heads = max(width // 64, 1)
    version = checkpoint.settings.get("cond_stage_config", {}).get("params", {}).get("version", "")
    if version and (described := Path(version, "config.json")).is_file():
        given = json.loads(described.read_text(encoding="utf-8")).get("num_attention_heads", heads)
        heads = whole(str(described), "num_attention_heads", given, 1, width)
    projection = state.get("text_projection.weight")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": len(state["text_model.encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": sum(key.endswith(".layer_norm1.weight") for key in state),
        "num_attention_heads": heads,
        "max_position_embeddings": len(state["text_model.embeddings.position_embedding.weight"]),
        "projection_dim": width if projection is None else len(projection),
        "hidden_act": activation,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def _filled(name: str, build: Callable[[], nn.Module], state: Mapping[str, Tensor], dtype: torch.dtype) -> nn.Module:
    """The module with the state's tensors in `dtype`. It is not initialised first."""
    with torch.device("meta"):
        module = build()
    wanted = module.state_dict()
    named = {  # recent versions of transformers have no outermost name
        key if key in wanted else key.removeprefix("text_model."): value.to(dtype) for key, value in state.items()
    }
    try:
        missing = module.load_state_dict(named, strict=False, assign=True).missing_keys
    except RuntimeError as error:
        raise ModelError(
            f"{name}: its tensors do not have the shapes of its model family "
            f"({str(error).splitlines()[-1].strip()}); get another copy"
        ) from error
    if missing:
        raise ModelError(
            f"{name}: incomplete, {len(missing)} tensors are missing, the first is {missing[0]}; get another copy"
        )
    for owner in module.modules():
        for key, value in owner.named_buffers(recurse=False):  # CLIP's position ids, which are not saved
            if value.is_meta:
                owner.register_buffer(key, torch.arange(value.shape[-1])[None], persistent=False)  # (1, 77)
    return module.eval()
