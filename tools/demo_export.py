"""Write a trained demo model in the layout of a Stable Diffusion 1 or XL pipeline."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from demo_text import SECOND_PAD, Encoder
from demo_unet import new_scheduler
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTokenizer

CONTEXTS = "contexts.json"
MACHINE_KEYS = ("_name_or_path", "_commit_hash")


def export_model(
    out: Path, vae: AutoencoderKL, encoders: Sequence[Encoder], unet: UNet2DConditionModel, tokenizer_files: Path
) -> None:
    """Write the model in half precision, file by file in place, so that a reader finds whole files."""
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_files)
    parts = {"vae": vae, "unet": unet, "scheduler": new_scheduler(), "feature_extractor": None}
    parts |= {"text_encoder": encoders[0], "tokenizer": tokenizer}
    if len(encoders) == 1:
        pipeline = StableDiffusionPipeline(**parts, safety_checker=None, requires_safety_checker=False)
    else:
        parts |= {"text_encoder_2": encoders[1], "tokenizer_2": tokenizer}
        pipeline = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        draft = Path(temporary)
        pipeline.to(dtype=torch.float16).save_pretrained(draft)
        for folder in draft.glob("tokenizer*"):
            shutil.rmtree(folder)
            shutil.copytree(tokenizer_files, folder)
        shutil.copy(tokenizer_files.parent / CONTEXTS, draft)  # the same words, but for an earth palette's colours
        for path in draft.glob("tokenizer_2/*_*.json"):  # its configuration and its map of special tokens
            _change(path, lambda config: config | {"pad_token": SECOND_PAD})
        for path in sorted(draft.rglob("*")):
            if path.suffix == ".json" and not path.parent.name.startswith("tokenizer"):
                _change(path, _without_machine_keys)
            target = out / path.relative_to(draft)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                path.chmod(0o644)
                path.replace(target)


def _without_machine_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what it says about the machine it was written on."""
    return {key: value for key, value in config.items() if key not in MACHINE_KEYS}


def _change(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write a JSON file anew."""
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8"))), indent=2) + "\n", "utf-8")
