"""Tiny models with random weights and the structure of SD1, SD2 and SDXL, for tests. They draw no meaningful pictures.

The families differ where it matters to a loader: the text encoder's activation and padding, the layer its hidden states
are taken from, what the U-Net predicts, and SDXL's two encoders with pooled state and time ids (Podell et al., "SDXL",
2023).
"""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    UNet2DConditionModel,
    __version__,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from embedding_estimate.demo import demo_model_path

Family = Literal["sd1", "sd2", "sdxl"]

WIDTH, SECOND_WIDTH = 32, 48  # of the text encoders
PROJECTION = 24  # SDXL's pooled text
TIME_WIDTH = 8  # of each of SDXL's six time ids


def random_model(family: Family, directory: Path, seed: int = 0) -> Path:
    """Writes a tiny random model and returns its folder.

    Latents are (B, 4, 8, 8), pictures 64x64 pixels, hidden states 32 wide (SDXL: 32 + 48).

    Args:
        family: "sd1" (noise prediction), "sd2" (velocity prediction) or "sdxl" (two text encoders).
        directory: the folder to write to; it is made if it is missing.
        seed: of the weights. The global random state does not change.
    """
    directory = Path(directory)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = _xl_parts() if family == "sdxl" else _parts(family)
        for part in parts.values():
            if isinstance(part, torch.nn.Module):
                _vary_norms(part)
    for name, part in parts.items():
        part.save_pretrained(directory / name)
    pads = {"tokenizer": "!" if family == "sd2" else "<|endoftext|>"}
    if family == "sdxl":
        pads["tokenizer_2"] = "!"
    for name, pad_token in pads.items():
        _write_tokenizer(directory / name, pad_token)
    _write_index(directory, family, parts, list(pads))
    _write_contexts(directory)
    return directory


def _parts(family: Family) -> dict[str, Any]:
    """The parts of SD1, or of SD2: gelu, linear projections in the U-Net, velocity prediction."""
    second = family == "sd2"
    return {
        "text_encoder": CLIPTextModel(_text_config(WIDTH, "gelu" if second else "quick_gelu")),
        "unet": _unet(WIDTH, use_linear_projection=second),
        "vae": _vae(),
        "scheduler": _scheduler("v_prediction" if second else "epsilon"),
    }


def _xl_parts() -> dict[str, Any]:
    """The parts of SDXL."""
    return {
        "text_encoder": CLIPTextModel(_text_config(WIDTH, "quick_gelu")),
        "text_encoder_2": CLIPTextModelWithProjection(_text_config(SECOND_WIDTH, "gelu")),
        "unet": _unet(
            WIDTH + SECOND_WIDTH,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=TIME_WIDTH,
            projection_class_embeddings_input_dim=PROJECTION + 6 * TIME_WIDTH,
        ),
        "vae": _vae(),
        "scheduler": _scheduler("epsilon"),
    }


def _text_config(width: int, activation: str) -> CLIPTextConfig:
    """A text encoder of three layers, so that the last but one differs from first and last."""
    return CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=PROJECTION,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=49_406,
        eos_token_id=49_407,
    )


def _unet(context_width: int, **family: Any) -> UNet2DConditionModel:
    """A U-Net with cross-attention at 8x8 and 4x4."""
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        cross_attention_dim=context_width,
        **family,
    )


def _vae() -> AutoencoderKL:
    """An autoencoder with SD's eightfold downsampling."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        sample_size=64,
    )


def _scheduler(prediction: str) -> DDIMScheduler:
    """SD's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
        prediction_type=prediction,
    )


@torch.no_grad()
def _vary_norms(model: torch.nn.Module) -> None:
    """Give LayerNorms weights: at 1 and 0 the hidden states' mean is 0, and emphasis divides by it."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.uniform_(0.8, 1.2)
            module.bias.uniform_(-0.4, 0.2)


def _write_tokenizer(directory: Path, pad_token: str) -> None:
    """The demo model's tokenizer with another padding."""
    source = demo_model_path() / "tokenizer"
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(source / name, directory / name)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        config = json.loads((source / name).read_text("utf-8")) | {"pad_token": pad_token}
        (directory / name).write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _write_index(directory: Path, family: Family, parts: dict[str, Any], tokenizers: list[str]) -> None:
    """model_index.json, which names each part's library and class."""
    index: dict[str, Any] = {"_diffusers_version": __version__}
    for name, part in parts.items():
        index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
    for name in tokenizers:
        index[name] = ["transformers", "CLIPTokenizer"]
    if family == "sdxl":
        index |= {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}
        index |= {"image_encoder": [None, None], "feature_extractor": [None, None]}
    else:
        index |= {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
        index |= {name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")}
    (directory / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", "utf-8")


def _write_contexts(directory: Path) -> None:
    """The demo model's, a quarter of those to train in, which takes a quarter of the time."""
    lists = json.loads((demo_model_path() / "contexts.json").read_text("utf-8"))
    for side in lists.values():
        side["train"] = side["train"][:15]
    (directory / "contexts.json").write_text(json.dumps(lists, indent=1) + "\n", "utf-8")
