"""Checkpoints that this program cannot work with, as AUTOMATIC1111 and reForge keep them."""

from __future__ import annotations

from typing import Any

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.webui.support import checkpoint

INPAINTING = "an inpainting checkpoint is conditioned on a picture too: choose the plain checkpoint"
PIX2PIX = "an instruct-pix2pix checkpoint is conditioned on a picture too: choose the plain checkpoint"
UNCLIP = "an unCLIP checkpoint is conditioned on a picture too: choose the plain checkpoint"
REFINER = "a refiner has one text encoder only: choose the base checkpoint"
NONE_LOADED = "no checkpoint is loaded: choose one at the top of the page"


def of_a_known_kind(model: Any) -> Any:
    """The model. Raises `ModelError`, by name, for one of another kind, and where there is none."""
    if model is None:
        raise ModelError(NONE_LOADED)
    if reason := _reason(model):
        raise ModelError(f"{checkpoint(model)[0]}: {reason}")
    return model


def encoders(model: Any) -> list[Any]:
    """The WebUI's text engines."""
    conditioner = getattr(model, "conditioner", None)
    if conditioner is None:
        return [model.cond_stage_model]
    return [embedder for embedder in conditioner.embedders if hasattr(embedder, "process_tokens")]


def _reason(model: Any) -> str:
    """Why a model is not supported; empty where it is."""
    if getattr(model, "is_sd3", False):
        return "Stable Diffusion 3 has other text encoders: choose an SD1, SD2 or SDXL checkpoint"
    if getattr(model, "is_sdxl_inpaint", False) or _conditioning_key(model) in ("hybrid", "concat"):
        return INPAINTING
    if getattr(model, "cond_stage_key", "") == "edit":
        return PIX2PIX
    if _conditioning_key(model) == "crossattn-adm":
        return UNCLIP
    engines = encoders(model)
    if not all(hasattr(engine, "process_tokens") for engine in engines):
        kinds = ", ".join(type(engine).__name__ for engine in engines)
        return f"its text encoder ({kinds}) is none of CLIP's: choose an SD1, SD2 or SDXL checkpoint"
    if getattr(model, "is_sdxl", False) and len(engines) != 2:
        return REFINER
    return ""


def _conditioning_key(model: Any) -> str:
    return str(getattr(getattr(model, "model", None), "conditioning_key", ""))
