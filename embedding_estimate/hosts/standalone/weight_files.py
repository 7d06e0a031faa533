"""Finds the weight files that a folder in diffusers layout is loaded from, and their hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")  # that the pictures depend on
NAME = re.compile(r"(diffusion_pytorch_model|pytorch_model|model)(-\d+-of-\d+)?\.(safetensors|bin)")


def loaded_from(folder: Path) -> list[Path]:
    """The weights of every part in a fixed order: its .safetensors files, or its .bin files if it has no others.

    Variants such as `model.fp16.safetensors` are left out, because they are not loaded.
    """
    paths: list[Path] = []
    for part in PARTS:
        files = sorted(path for path in folder.joinpath(part).glob("*") if NAME.fullmatch(path.name))
        paths += [path for path in files if path.suffix == ".safetensors"] or files
    return paths


def short_hash(paths: Sequence[Path]) -> str:
    """The WebUI's short hash: the first 10 hex digits of the sha256; "" without files."""
    if not paths:
        return ""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:10]
