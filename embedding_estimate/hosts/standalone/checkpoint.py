"""Opens single-file checkpoints in the layout of the original code ("LDM") and recognises their family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.standalone.model_config import between
from embedding_estimate.model.host import Family, Prediction

Shapes = Mapping[str, tuple[int, ...]]

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer."
OPEN_CLIP = "cond_stage_model.model."
FIRST_OF_TWO = "conditioner.embedders.0."
SECOND_OF_TWO = "conditioner.embedders.1."

FOREIGN = {  # a key, with or without the U-Net's prefix -> what has it
    "double_blocks.0.img_attn.norm.key_norm.scale": "Flux",
    "single_stream_modulation.lin.weight": "Flux 2",
    "joint_blocks.0.context_block.adaLN_modulation.1.bias": "Stable Diffusion 3",
    "clip_txt_mapper.weight": "Stable Cascade",
    "down_blocks.1.0.channelwise.0.weight": "Stable Cascade",
    "double_layers.0.attn.w1q.weight": "AuraFlow",
    "double_stream_blocks.0.block.adaLN_modulation.1.bias": "HiDream",
    "cap_embedder.0.weight": "Lumina 2",
    "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias": "Hunyuan Video",
    "head.modulation": "Wan",
    "patchify_proj.weight": "LTX Video",
    "input_blocks.1.1.time_stack.0.norm1.weight": "Stable Video Diffusion",
    "down_blocks.0.resnets.0.conv1.weight": "a U-Net alone",
    "decoder.conv_in.weight": "a VAE alone",
    "emb_params": "an embedding",
    "clip_g": "an embedding",
}

INPUTS = {  # input channels of the U-Net -> what kind of model takes them
    9: "an inpainting model",
    8: "an instruct-pix2pix model",
    7: "an upscaler",
    5: "a depth-to-image model",
}


def refuse_inputs(name: str, channels: int, latent_channels: int) -> None:
    """Raises ModelError for a U-Net that takes more inputs than the noisy latent."""
    if channels != latent_channels:
        kind = INPUTS.get(channels, "an unknown kind of model")
        raise ModelError(f"{name}: {kind}, its U-Net takes {channels} channels; choose a plain text-to-image model")


@dataclass(frozen=True)
class Checkpoint:
    """An open checkpoint whose family is known."""

    name: str
    file: Any  # safetensors.safe_open
    shapes: Shapes
    family: Family
    settings: Mapping[str, Any]  # `model.params` of the .yaml beside it

    @property
    def prediction(self) -> Prediction | None:
        """What the U-Net predicts, if the file or its .yaml says so. None if only a test can show it (SD2)."""
        if "v_pred" in self.shapes or self.settings.get("parameterization") == "v":
            return "v"
        scaling = self.settings.get("denoiser_config", {}).get("params", {}).get("scaling_config", {})
        if "VScaling" in scaling.get("target", ""):
            return "v"
        return None if self.family == "sd2" and not self.settings else "epsilon"

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether its noise schedule ends in pure noise (Lin et al. 2024)."""
        return "ztsnr" in self.shapes

    def number(self, key: str, otherwise: float, *, below: float) -> float:
        """A positive number of the description. Raises ModelError for anything else."""
        described = Path(self.name).with_suffix(".yaml")
        return between(described.name, key, self.settings.get(key, otherwise), 0, below)

    def shapes_under(self, prefix: str) -> Shapes:
        return {key.removeprefix(prefix): shape for key, shape in self.shapes.items() if key.startswith(prefix)}

    def tensors_under(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): self.file.get_tensor(key) for key in self.shapes if key.startswith(prefix)}


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Checkpoint]:
    """Opens a `.safetensors` file. Raises ModelError if it is damaged or not a Stable Diffusion 1, 2 or XL."""
    from safetensors import SafetensorError, safe_open

    if path.suffix.lower() != ".safetensors":
        raise ModelError(f"{path.name}: a single file has to be a .safetensors checkpoint; convert it first")
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.keys()
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in keys}
            yield Checkpoint(path.name, file, shapes, recognise(path.name, shapes), _beside(path))
    except SafetensorError as error:
        raise ModelError(f"{path.name}: truncated or not a safetensors file ({error}); download it again") from error


def recognise(name: str, shapes: Shapes) -> Family:
    """The family, by the names of the tensors. Raises ModelError for everything but SD1, SD2 and SDXL."""
    _refuse_others(name, shapes)

    def has(prefix: str) -> bool:
        return any(key.startswith(prefix) for key in shapes)

    sized = f"{UNET}label_emb.0.0.weight" in shapes
    if has(f"{FIRST_OF_TWO}model."):
        raise ModelError(f"{name}: an SDXL refiner; choose the base model")
    if has(f"{SECOND_OF_TWO}model.") and sized:
        return "sdxl"
    if sized:
        raise ModelError(f"{name}: an unCLIP model, whose U-Net takes images; choose a plain text-to-image model")
    if has(OPEN_CLIP):
        return "sd2"
    if has(CLIP):
        return "sd1"
    raise ModelError(f"{name}: an incomplete checkpoint without a text encoder; get a complete one")


def _refuse_others(name: str, shapes: Shapes) -> None:
    """Raises `ModelError` for everything but a complete text-to-image Stable Diffusion checkpoint."""
    kinds = [kind for key, kind in FOREIGN.items() if key in shapes or UNET + key in shapes]
    if any(key.startswith("control_model.") for key in shapes):
        kinds.append("a ControlNet")
    if any("lora_" in key for key in shapes):
        kinds.append("a LoRA")
    if kinds:
        raise ModelError(f"{name}: {kinds[0]}, not a Stable Diffusion 1, 2 or XL checkpoint; choose another file")
    if f"{UNET}input_blocks.0.0.weight" not in shapes:
        raise ModelError(f"{name}: not a Stable Diffusion checkpoint, because it holds no U-Net; choose another file")
    if not any(key.startswith(VAE) for key in shapes):
        raise ModelError(f"{name}: an incomplete checkpoint without a VAE; get a complete one")
    refuse_inputs(name, shapes[f"{UNET}input_blocks.0.0.weight"][1], shapes[f"{VAE}decoder.conv_in.weight"][1])


def _beside(path: Path) -> Mapping[str, Any]:
    described = path.with_suffix(".yaml")
    if not described.is_file():
        return {}
    import yaml

    try:
        parameters = yaml.safe_load(described.read_text(encoding="utf-8"))["model"]["params"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ModelError(
            f"{described.name}: not the configuration of a Stable Diffusion model; get another copy"
        ) from error
    if not isinstance(parameters, Mapping):
        raise ModelError(f"{described.name}: not the configuration of a Stable Diffusion model; get another copy")
    return parameters
