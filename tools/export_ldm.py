"""Write a demo model as one checkpoint in the layout of the original code ("LDM"), for AUTOMATIC1111's WebUI.

    python tools/export_ldm.py embedding_estimate/demo/shapes OUT.safetensors

writes OUT.safetensors, its description OUT.yaml and the folder OUT_clip with the text encoder's configuration and the
tokenizer. Pictures come out as from the folder; the model is wider there, see ldm_widening.py. All three go where the
WebUI has its checkpoints; OUT.yaml names the folder by its full path, so export anew or edit it after a move. Forge and
reForge read no description: they know SD1 by its full widths and refuse this one.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from ldm_parts import unet_parts, vae_parts
from ldm_widening import tensors
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel

UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


def export_ldm(model: Path, out: Path) -> None:
    """Write the model in that folder; raises ValueError where LDM cannot hold it exactly."""
    encoder = CLIPTextModel.from_pretrained(model / "text_encoder").float()
    unet = UNet2DConditionModel.from_pretrained(model / "unet").float()
    vae = AutoencoderKL.from_pretrained(model / "vae").float()
    refuse_other_architectures(unet, vae)
    checkpoint = {
        **{UNET + name: tensor for name, tensor in tensors(unet_parts(unet))},
        **{VAE + name: _as_convolution(tensor) for name, tensor in tensors(vae_parts(vae))},
        **{CLIP + name: tensor for name, tensor in clip_tensors(encoder).items()},
    }
    clip = out.with_name(f"{out.stem}_clip").resolve()
    schedule = json.loads((model / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    description = {"model": latent_diffusion(checkpoint, unet, vae, schedule, clip)}

    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: _halved(tensor) for name, tensor in checkpoint.items()}, out, metadata={"format": "pt"})
    out.chmod(0o644)
    out.with_suffix(".yaml").write_text(yaml.safe_dump(description, sort_keys=False), "utf-8")
    shutil.copytree(model / "tokenizer", clip, dirs_exist_ok=True)
    shutil.copyfile(model / "text_encoder" / "config.json", clip / "config.json")


def refuse_other_architectures(unet: UNet2DConditionModel, vae: AutoencoderKL) -> None:
    """Raises ValueError for what LDM builds otherwise; whether the widths fit shows when the norms are widened."""
    blocks = {*unet.config.down_block_types, *unet.config.up_block_types}
    if blocks != {"CrossAttnDownBlock2D", "CrossAttnUpBlock2D"} or unet.config.use_linear_projection:
        raise ValueError("the U-Net needs cross-attention in every block and projections that are convolutions")
    widths = vae.config.block_out_channels
    if not vae.config.mid_block_add_attention or any(width % widths[0] for width in widths):
        raise ValueError("the VAE needs attention in its middle and widths that are multiples of the first")


def clip_tensors(encoder: CLIPTextModel) -> dict[str, Tensor]:
    """The text encoder as it is; recent versions of transformers have dropped the outermost name."""
    return {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in encoder.state_dict().items()}


def latent_diffusion(
    checkpoint: dict[str, Tensor],
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    schedule: dict[str, Any],
    clip: Path,
) -> dict[str, Any]:
    """What LDM has to build for the checkpoint, as in SD1's v1-inference.yaml."""
    widths, vae_widths = unet.config.block_out_channels, vae.config.block_out_channels
    return {
        "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
        "params": {
            "timesteps": schedule["num_train_timesteps"],
            "linear_start": schedule["beta_start"],  # LDM's linear is diffusers' scaled_linear
            "linear_end": schedule["beta_end"],
            "parameterization": "v" if schedule.get("prediction_type") == "v_prediction" else "eps",
            "first_stage_key": "jpg",
            "cond_stage_key": "txt",
            "image_size": unet.config.sample_size,
            "channels": unet.config.in_channels,
            "cond_stage_trainable": False,
            "conditioning_key": "crossattn",
            "scale_factor": vae.config.scaling_factor,
            "use_ema": False,
            "unet_config": {
                "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                "params": {
                    "image_size": unet.config.sample_size,
                    "in_channels": unet.config.in_channels,
                    "out_channels": unet.config.out_channels,
                    "model_channels": len(checkpoint[f"{UNET}input_blocks.0.0.weight"]),
                    "attention_resolutions": [2**level for level in range(len(widths))],
                    "num_res_blocks": unet.config.layers_per_block,
                    "channel_mult": [width // widths[0] for width in widths],
                    "num_heads": unet.config.attention_head_dim,  # diffusers' misnomer
                    "use_spatial_transformer": True,
                    "transformer_depth": 1,
                    "context_dim": unet.config.cross_attention_dim,
                    "use_checkpoint": False,
                    "legacy": False,
                },
            },
            "first_stage_config": {
                "target": "ldm.models.autoencoder.AutoencoderKL",
                "params": {
                    "embed_dim": vae.config.latent_channels,
                    "ddconfig": {
                        "double_z": True,
                        "z_channels": vae.config.latent_channels,
                        "resolution": vae.config.sample_size,
                        "in_channels": vae.config.in_channels,
                        "out_ch": vae.config.out_channels,
                        "ch": len(checkpoint[f"{VAE}encoder.conv_in.weight"]),
                        "ch_mult": [width // vae_widths[0] for width in vae_widths],
                        "num_res_blocks": vae.config.layers_per_block,
                        "attn_resolutions": [],
                        "dropout": 0.0,
                    },
                    "lossconfig": {"target": "torch.nn.Identity"},
                },
            },
            "cond_stage_config": {
                "target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder",
                "params": {"version": clip.as_posix()},
            },
        },
    }


def _as_convolution(tensor: Tensor) -> Tensor:
    """LDM's VAE has 1x1 convolutions (out, in, 1, 1) where diffusers has the linear layers of an attention."""
    return tensor[..., None, None] if tensor.dim() == 2 else tensor


def _halved(tensor: Tensor) -> Tensor:
    """In half precision if that loses nothing: all but the VAE's queries, whose gain is no power of two."""
    half = tensor.half()
    return half if torch.equal(half.to(tensor.dtype), tensor) else tensor


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder in diffusers layout")
    parser.add_argument("out", type=Path, help="the checkpoint, a .safetensors file")
    arguments = parser.parse_args()
    export_ldm(arguments.model, arguments.out)
