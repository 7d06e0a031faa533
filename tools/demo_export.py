"""Write a trained demo model in the layout of a Stable Diffusion 1 pipeline."""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from demo_unet import new_scheduler
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

MACHINE_KEYS = ("_name_or_path", "_commit_hash")


def export_model(
    out: Path, vae: AutoencoderKL, encoder: CLIPTextModel, unet: UNet2DConditionModel, tokenizer_files: Path
) -> None:
    """Write the model in half precision, file by file in place, so that a reader finds whole files."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer_files),
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        draft = Path(folder)
        pipeline.to(dtype=torch.float16).save_pretrained(draft)
        shutil.rmtree(draft / "tokenizer")
        shutil.copytree(tokenizer_files, draft / "tokenizer")
        for path in sorted(draft.rglob("*")):
            if path.suffix == ".json" and path.parent.name != "tokenizer":
                _without_machine_keys(path)
            target = out / path.relative_to(draft)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                path.chmod(0o644)
                path.replace(target)


def _without_machine_keys(path: Path) -> None:
    """Drop what a configuration says about the machine it was written on."""
    config = json.loads(path.read_text("utf-8"))
    kept = {key: value for key, value in config.items() if key not in MACHINE_KEYS}
    path.write_text(json.dumps(kept, indent=2) + "\n", "utf-8")
