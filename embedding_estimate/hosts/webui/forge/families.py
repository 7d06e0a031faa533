"""Checkpoints that this program can work with in Forge: an allow-list, since others appear every month."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.webui.a1111.refusals import INPAINTING, PIX2PIX, REFINER, UNCLIP
from embedding_estimate.hosts.webui.support import checkpoint

ALLOWED = ("SD15", "SD20", "SDXL", "SSD1B", "Segmind_Vega", "KOALA_700M", "KOALA_1B")  # Forge's names of families
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}  # Forge's names, and the project's
DEPTH = "a depth checkpoint is conditioned on a picture too: choose the plain checkpoint"
BY_CHANNELS = {5: DEPTH, 8: PIX2PIX}  # of the U-Net's input
PICTURE = {
    "SD15_instructpix2pix": PIX2PIX,
    "SDXL_instructpix2pix": PIX2PIX,
    "SD21UnclipL": UNCLIP,
    "SD21UnclipH": UNCLIP,
}
OF_TEXT_ENCODERS = ("text_model.encoder.layers.0.", "resblocks.0.")  # in the keys of CLIP's first layer


def refuse_file(described: Any, storage: Any) -> None:
    """Raises `ModelError` for a checkpoint that cannot be used, as far as that can be known before weights are read.

    Args:
        described: The WebUI's description of the checkpoint that is chosen.
        storage: What the page asks the U-Net to be stored in: a dtype, a name, or None for the file's own.
    """
    path, name = Path(described.filename), str(described.name_for_extra)
    if isinstance(storage, str):
        raise ModelError(f"'Diffusion in Low Bits' is {storage}, which passes no gradient back: choose Automatic")
    if path.suffix.lower() == ".gguf":
        raise ModelError(f"{name}: GGUF weights pass no gradient back: choose a safetensors checkpoint")
    if path.suffix.lower() != ".safetensors":
        return
    weights = _weights(path, name)
    if any("bitsandbytes__" in key for key in weights):
        raise ModelError(f"{name}: NF4 and FP4 weights pass no gradient back: choose a checkpoint in fp16")
    config = _guessed(weights)
    if config is None:
        raise ModelError(f"{name}: it is no checkpoint that the WebUI knows: {_way_out()}")
    _refuse_config(name, config)


def refuse_beside(files: Sequence[str]) -> None:
    """Raises `ModelError` for a damaged or missing file of the VAE and text encoders chosen beside the checkpoint.

    The WebUI would say that it does not recognise the checkpoint.
    """
    for path in map(Path, files):
        if path.suffix.lower() == ".safetensors":
            _weights(path, path.name)


def text_encoders(files: Sequence[str]) -> list[str]:
    """Names of those files, of the ones chosen beside the checkpoint, that bring a text encoder of CLIP's kind."""
    return [path.stem for path in map(Path, files) if _is_text_encoder(path)]


def _is_text_encoder(path: Path) -> bool:
    if path.suffix.lower() != ".safetensors":
        return False
    try:
        weights = _weights(path, path.name)
    except ModelError:  # gone since it was loaded
        return False
    return any(part in key for key in weights for part in OF_TEXT_ENCODERS)


def refuse_loaded(model: Any) -> None:
    """Raises `ModelError`, by name, for a loaded model that cannot be used."""
    name = checkpoint(model)[0]
    _refuse_config(name, model.model_config)
    unet = model.forge_objects.unet.model
    prediction = str(unet.predictor.prediction_type)
    if prediction not in PREDICTIONS:
        raise ModelError(f"{name}: it predicts {prediction} and no noise (epsilon) or velocity (v): {_way_out()}")
    if isinstance(unet.storage_dtype, str):
        raise ModelError(f"{name}: {unet.storage_dtype} weights pass no gradient back: choose a checkpoint in fp16")


def _refuse_config(name: str, config: Any) -> None:
    family = type(config).__name__
    if family == "SDXLRefiner":
        raise ModelError(f"{name}: {REFINER}")
    if family in PICTURE:
        raise ModelError(f"{name}: {PICTURE[family]}")
    if family not in ALLOWED:
        raise ModelError(f"{name}: the WebUI takes it for {family}, which is not supported: {_way_out()}")
    if config.inpaint_model():
        raise ModelError(f"{name}: {BY_CHANNELS.get(config.unet_config['in_channels'], INPAINTING)}")


def _way_out() -> str:
    """What to choose. Forge Neo knows no SD2."""
    from huggingface_guess import model_list

    return f"choose an {'SD1, SD2' if hasattr(model_list, 'SD20') else 'SD1'} or SDXL checkpoint"


def _weights(path: Path, name: str) -> dict[str, torch.Tensor]:
    """A safetensors file's tensors by key, with their shapes and without their values.

    Raises `ModelError` for a file that is damaged or not there.
    """
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.keys()
            return {key: torch.empty(file.get_slice(key).get_shape(), device="meta") for key in keys}
    except SafetensorError as error:
        raise ModelError(f"{name}: truncated or not a safetensors file ({error}); download it again") from error
    except OSError as error:
        raise ModelError(f"{name}: cannot be read ({error}): choose another one") from error


def _guessed(weights: dict[str, torch.Tensor]) -> Any:
    """The WebUI's own guess at the family, or None where it has none."""
    from huggingface_guess import detection

    if not any(key.startswith("model.diffusion_model.") for key in weights):  # a U-Net alone
        weights = {f"model.diffusion_model.{key}": value for key, value in weights.items()}
    prefix = detection.unet_prefix_from_state_dict(weights)
    try:
        return detection.model_config_from_unet(weights, prefix, use_base_if_no_match=False)
    except (AssertionError, KeyError):  # of one that is like those it knows in part
        return None
