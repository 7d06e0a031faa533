"""Uses a diffusers pipeline that is already in memory. Nothing in it is changed or moved."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.standalone.loading import (
    LoadedModel,
    TextEncoder,
    by_key,
    check_configs,
    family_of,
    prediction_of,
    quiet,
    vae_overflows,
)
from embedding_estimate.hosts.standalone.model_config import alphas_cumprod, contexts, sample_size

KINDS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")  # in diffusers
NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
NEEDED_BY_SDXL = (*NEEDED, "text_encoder_2", "tokenizer_2")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def from_pipeline(pipeline: Any) -> LoadedModel:
    """The parts of a StableDiffusionPipeline or a StableDiffusionXLPipeline, on their device and in their precision.

    Text encoders in half precision are copied in fp32, since vectors are trained through them. So is SDXL's VAE in
    fp16, whose values overflow. Of the scheduler only the configuration is read: the model's noise levels, and what
    the U-Net predicts. Raises ModelError, in one line, for a pipeline that cannot be used as it is.
    """
    kind = type(pipeline).__name__
    _check_kind(pipeline)
    unet, vae = _uncompiled(pipeline.unet), _uncompiled(pipeline.vae)
    held = text_encoders(pipeline)
    modules = {"unet": unet, "vae": vae} | {key: part.model for key, part in held.items()}
    device = _device(kind, modules)
    _check_hooks(kind, modules)
    check_configs(kind, unet.config, vae.config)
    if getattr(unet.config, "encoder_hid_dim_type", None) is not None:
        raise ModelError(f"{kind}: its U-Net also reads images (IP-Adapter); call unload_ip_adapter() first")
    family = family_of(unet.config, held)
    schedule = _schedule(kind, pipeline.scheduler)
    prediction = prediction_of(kind, schedule)
    folder = Path(str(pipeline.name_or_path or kind))
    with quiet():
        encoders = {key: TextEncoder(_in_fp32(part.model), part.tokenizer) for key, part in held.items()}
    return LoadedModel(
        name=folder.name,
        hash="",  # what is in memory may have changed since it was a file
        family=family,
        prediction=prediction,
        text_encoders=encoders,
        unet=unet,
        vae=_in_fp32(vae) if vae_overflows(family, vae.dtype) else vae,
        alphas_cumprod=alphas_cumprod(f"{kind}: {type(pipeline.scheduler).__name__}", schedule),
        sample_size=sample_size(f"{kind}: its U-Net", unet.config.sample_size, family, prediction),
        contexts=contexts(folder),
        device=device,
        dtype=unet.dtype,
    )


def text_encoders(pipeline: Any) -> dict[str, TextEncoder]:
    """A pipeline's own text encoders and tokenizers, under the keys of embedding files."""
    first = TextEncoder(_uncompiled(pipeline.text_encoder), pipeline.tokenizer)
    if getattr(pipeline, "text_encoder_2", None) is None:
        return by_key(first)
    return by_key(first, TextEncoder(_uncompiled(pipeline.text_encoder_2), pipeline.tokenizer_2))


def _check_kind(pipeline: Any) -> None:
    """Raises ModelError unless the pipeline is one of `KINDS`, with all of its parts."""
    import diffusers

    kind = type(pipeline).__name__
    if not isinstance(pipeline, tuple(getattr(diffusers, name) for name in KINDS)):
        way_out = f"load the model as {' or '.join(KINDS)}"
        raise ModelError(f"{kind}: only text-to-image pipelines of Stable Diffusion 1, 2 and XL are read; {way_out}")
    needed = NEEDED_BY_SDXL if isinstance(pipeline, diffusers.StableDiffusionXLPipeline) else NEEDED
    if missing := [part for part in needed if getattr(pipeline, part, None) is None]:
        raise ModelError(f"{kind}: has no {missing[0]}; load the pipeline with all of its parts")


def _device(kind: str, modules: Mapping[str, nn.Module]) -> torch.device:
    """The device of all modules. Raises ModelError if there are several devices, or weights of an unsupported type."""
    places = {parameter.device for module in modules.values() for parameter in module.parameters()}
    if len(places) != 1 or "meta" in {place.type for place in places}:
        devices = ", ".join(sorted(map(str, places)))
        raise ModelError(f"{kind}: its parts are on {devices}; put all of them on one device, as pipe.to('cuda') does")
    for name, module in modules.items():
        dtypes = {parameter.dtype for parameter in module.parameters()}
        if unknown := [dtype for dtype in dtypes if dtype not in DTYPES]:
            raise ModelError(f"{kind}: its {name} holds {unknown[0]}; load it in float32, float16 or bfloat16")
    return places.pop()


def _check_hooks(kind: str, modules: Mapping[str, nn.Module]) -> None:
    """Raises ModelError if accelerate or diffusers moves weights by itself, or reuses results."""
    for name, module in modules.items():
        for part in module.modules():
            if hasattr(part, "_hf_hook"):
                raise ModelError(
                    f"{kind}: its {name} moves between devices (CPU offload or device_map); call remove_all_hooks() "
                    "and to('cuda'), or load it without"
                )
            if getattr(getattr(part, "_diffusers_hook", None), "hooks", None):
                raise ModelError(
                    f"{kind}: its {name} has hooks of diffusers (group offload, layerwise casting or a cache); "
                    "load it without them"
                )


def _schedule(kind: str, scheduler: Any) -> Mapping[str, Any]:
    """The configuration of a scheduler. Raises ModelError if its noise levels are not the model's."""
    schedule: Mapping[str, Any] = dict(scheduler.config)
    if "beta_start" not in schedule or schedule.get("use_flow_sigmas"):
        raise ModelError(
            f"{kind}: its scheduler {type(scheduler).__name__} does not have the noise levels of Stable Diffusion; "
            "give the pipeline the scheduler that came with the model"
        )
    return schedule


def _in_fp32(module: Any) -> Any:
    """The module itself if it is in fp32, otherwise a copy, so that the pipeline's module does not change."""
    if all(parameter.dtype == torch.float32 for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).float()


def _uncompiled(module: Any) -> Any:
    """The module that torch.compile has wrapped."""
    return getattr(module, "_orig_mod", module)
