"""Loads a Stable Diffusion 1, 2 or XL: a folder in diffusers layout, a `.safetensors` checkpoint, or a hub name."""

from __future__ import annotations

import logging
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.demo import demo_model_path
from embedding_estimate.errors import QUOTED, ModelError, quoted
from embedding_estimate.hosts.standalone import ldm
from embedding_estimate.hosts.standalone.checkpoint import open_checkpoint, refuse_inputs
from embedding_estimate.hosts.standalone.model_config import (
    MOST_SCALE,
    alphas_cumprod,
    between,
    contexts,
    sample_size,
    whole,
)
from embedding_estimate.hosts.standalone.weight_files import loaded_from, short_hash
from embedding_estimate.model.contexts import Contexts
from embedding_estimate.model.host import Family, Prediction

PADDING = {"clip_l": "<|endoftext|>", "clip_h": "!", "clip_g": "!"}  # encoder key -> what fills its chunks
CHOICE = "give a folder in diffusers layout, a .safetensors checkpoint or a hub name"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(?<!\.safetensors)(?<!\.ckpt)")


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder and its tokenizer."""

    model: Any  # transformers' CLIPTextModel, or CLIPTextModelWithProjection (SDXL's second), in fp32
    tokenizer: Any  # transformers' CLIPTokenizer; its pad token is the family's


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device, in eval mode."""

    name: str  # without its folder
    hash: str  # the first 10 hex digits of the sha256 of the weights that were loaded, "" for a hub name
    family: Family
    prediction: Prediction
    text_encoders: Mapping[str, TextEncoder]  # key -> encoder, in the order of the conditioning's columns
    unet: Any  # diffusers' UNet2DConditionModel
    vae: Any  # diffusers' AutoencoderKL
    alphas_cumprod: Tensor  # (T,), on the CPU
    sample_size: int  # latent cells, the side that the U-Net was trained at
    contexts: Mapping[str, Contexts]  # by side of the guidance
    device: torch.device
    dtype: torch.dtype  # of the U-Net


def load(
    model: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    prediction: Prediction | None = None,
) -> LoadedModel:
    """Loads `model` to `device` (default: the fastest available), its U-Net and VAE in `dtype` (default: fp16 on CUDA,
    otherwise fp32).

    Text encoders are always fp32, because vectors are trained through them; they are small. `prediction` overrides what
    the model says about its prediction. Raises ModelError, in one line, if the model is missing, incomplete or of
    another kind.
    """
    device = torch.device(device) if device is not None else _best_device()
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    path = Path(model)
    if not str(model) or not (path.exists() or HUB_NAME.fullmatch(str(model))):
        raise ModelError(f"{str(model) or repr(model)}: no such file or folder; {CHOICE}")
    if path.is_dir() and not (path / "model_index.json").exists():
        raise ModelError(f"{model}: a folder without a model_index.json, so not a model in diffusers layout; {CHOICE}")
    with quiet(), _one_line(str(model)):
        loaded = _load_file(path, dtype) if path.is_file() else _load_folder(str(model), dtype)
    prediction = prediction or loaded["prediction"] or _probe(loaded["unet"].to(device), loaded["alphas_cumprod"])
    size = None if path.is_file() else loaded["unet"].config.sample_size
    size = sample_size(f"{model}: unet/config.json", size, loaded["family"], prediction)
    for module in (loaded["unet"], loaded["vae"], *(part.model for part in loaded["text_encoders"].values())):
        module.to(device).eval()
    loaded |= {"prediction": prediction, "sample_size": size}
    return LoadedModel(**loaded, contexts=contexts(path), device=device, dtype=dtype)


def _load_file(path: Path, dtype: torch.dtype) -> dict[str, Any]:
    from transformers import CLIPTokenizer

    vocabulary = str(demo_model_path() / "tokenizer")  # CLIP has only one, and checkpoints leave it out
    with open_checkpoint(path) as checkpoint:
        schedule = {
            "beta_schedule": "scaled_linear",
            "beta_start": checkpoint.number("linear_start", 0.00085, below=1),
            "beta_end": checkpoint.number("linear_end", 0.012, below=1),
            "rescale_betas_zero_snr": checkpoint.zero_terminal_snr,
        }
        return {
            "name": path.stem,
            "hash": short_hash([path]),
            "family": checkpoint.family,
            "prediction": checkpoint.prediction,
            "text_encoders": {
                key: TextEncoder(encoder, CLIPTokenizer.from_pretrained(vocabulary, pad_token=PADDING[key]))
                for key, encoder in ldm.text_encoders(checkpoint).items()
            },
            "unet": ldm.unet(checkpoint, dtype),
            "vae": ldm.vae(checkpoint, torch.float32 if vae_overflows(checkpoint.family, dtype) else dtype),
            "alphas_cumprod": alphas_cumprod(path.name, schedule),
        }


def _load_folder(model: str, dtype: torch.dtype) -> dict[str, Any]:
    """Loads a folder in diffusers layout, or the hub's copy of one."""
    from diffusers import AutoencoderKL, DiffusionPipeline, EulerDiscreteScheduler, UNet2DConditionModel

    path = Path(model)
    source: dict[str, Any] = {"pretrained_model_name_or_path": model, "local_files_only": path.is_dir()}
    index = DiffusionPipeline.load_config(**source)
    has = {part for part, described in index.items() if isinstance(described, list) and described[0]}
    if index.get("requires_aesthetics_score") or ("text_encoder_2" in has and "text_encoder" not in has):
        raise ModelError(f"{model}: an SDXL refiner; choose the base model")
    if not {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} <= has:
        pipeline = str(index.get("_class_name", "a pipeline without a name"))[:QUOTED]
        raise ModelError(f"{model}: {pipeline}, not a Stable Diffusion 1, 2 or XL model")

    unet = _component(UNet2DConditionModel, source | {"subfolder": "unet", "torch_dtype": dtype})
    encoders = _text_encoders(source, two="text_encoder_2" in has)
    family = family_of(unet.config, encoders)
    vae_dtype = torch.float32 if vae_overflows(family, dtype) else dtype
    vae = _component(AutoencoderKL, source | {"subfolder": "vae", "torch_dtype": vae_dtype})
    check_configs(model, unet.config, vae.config)
    schedule = EulerDiscreteScheduler.load_config(**source, subfolder="scheduler")
    return {
        "name": path.resolve().name if path.is_dir() else path.name,
        "hash": short_hash(loaded_from(path)) if path.is_dir() else "",
        "family": family,
        "prediction": prediction_of(model, schedule),
        "text_encoders": encoders,
        "unet": unet,
        "vae": vae,
        "alphas_cumprod": alphas_cumprod(f"{model}: scheduler/scheduler_config.json", schedule),
    }


def _text_encoders(source: dict[str, Any], *, two: bool) -> dict[str, TextEncoder]:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    first = _text_encoder(CLIPTextModel, source | {"subfolder": "text_encoder"})
    reading = _reading(first, source | {"subfolder": "tokenizer"})
    if not two:
        return by_key(reading)
    second = _text_encoder(CLIPTextModelWithProjection, source | {"subfolder": "text_encoder_2"})
    return by_key(reading, _reading(second, source | {"subfolder": "tokenizer_2"}))


def by_key(first: TextEncoder, second: TextEncoder | None = None) -> dict[str, TextEncoder]:
    """A model's text encoders under the keys of embedding files. Only SDXL has a second one."""
    if second is None:
        return {"clip_h" if _is_open_clip(first.model) else "clip_l": first}
    return {"clip_l": first, "clip_g": second}


def _text_encoder(kind: Any, source: dict[str, Any]) -> Any:
    encoder = _component(kind, source).float()
    where = f"{source['pretrained_model_name_or_path']}: {source['subfolder']}/config.json"
    whole(where, "num_hidden_layers", encoder.config.num_hidden_layers, 1, 1000)
    whole(where, "max_position_embeddings", encoder.config.max_position_embeddings, 3, 100_000)
    return encoder


def _reading(encoder: Any, source: dict[str, Any]) -> TextEncoder:
    """An encoder with its tokenizer, checked for completeness: transformers makes a tokenizer without words if files
    are missing."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(**source)
    if len(tokenizer) < encoder.config.vocab_size:
        raise ValueError(f"{source['subfolder']} has {len(tokenizer)} of {encoder.config.vocab_size} words")
    return TextEncoder(encoder, tokenizer)


def _is_open_clip(encoder: Any) -> bool:
    """Whether an encoder is OpenCLIP. Only OpenAI's CLIP uses the quick approximation of GELU."""
    return bool(encoder.config.hidden_act != "quick_gelu")


def check_configs(model: str, unet: Any, vae: Any) -> None:
    """Raises ModelError if the configuration of a U-Net or a VAE is not that of a text-to-image model."""
    refuse_inputs(model, unet.in_channels, vae.latent_channels)
    between(f"{model}: vae/config.json", "scaling_factor", vae.scaling_factor, 0, MOST_SCALE)
    if unet.class_embed_type is not None:
        raise ModelError(f"{model}: an unCLIP model, whose U-Net takes images; choose a plain text-to-image model")


def family_of(unet: Any, encoders: Mapping[str, TextEncoder]) -> Family:
    """The family of a model, by its U-Net's configuration and its text encoders."""
    if unet.addition_embed_type == "text_time" and len(encoders) == 2:
        return "sdxl"
    return "sd2" if "clip_h" in encoders else "sd1"


def _component(kind: Any, source: dict[str, Any]) -> Any:
    """A complete module from its folder. The libraries only log missing tensors and fill them at random."""
    module, report = kind.from_pretrained(**source, output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{source['subfolder']} lacks {len(missing)} tensors, the first is {missing[0]}")
    return module


def prediction_of(model: str, schedule: Mapping[str, Any]) -> Prediction:
    """What the U-Net predicts, by the scheduler's configuration. Raises ModelError if that is not supported."""
    predictions: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v"}
    written = schedule.get("prediction_type", "epsilon")
    if not isinstance(written, str) or written not in predictions:
        raise ModelError(f"{model}: its U-Net predicts {quoted(written)}; only epsilon and v_prediction are supported")
    return predictions[written]


def vae_overflows(family: Family, dtype: torch.dtype) -> bool:
    """Whether the VAE's decoder overflows in fp16, as SDXL's does."""
    return family == "sdxl" and dtype == torch.float16


@torch.no_grad()
def _probe(unet: Any, alphas_cumprod: Tensor) -> Prediction:
    """Finds out what a U-Net predicts, at the noisiest level: there x is nearly the noise, and v nearly -x0.

    For SD2 checkpoints, whose two kinds look the same in the file.
    """
    noise = torch.randn((1, unet.config.in_channels, 32, 32), generator=torch.Generator().manual_seed(0))
    context = torch.zeros((1, 77, unet.config.cross_attention_dim))
    time = torch.tensor([len(alphas_cumprod) - 1], device=unet.device)
    inputs = [value.to(unet.device, unet.dtype) for value in (noise, context)]
    output = unet(inputs[0], time, encoder_hidden_states=inputs[1]).sample.float().cpu()
    return "epsilon" if torch.nn.functional.cosine_similarity(output.flatten(), noise.flatten(), dim=0) > 0.5 else "v"


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def _one_line(model: str) -> Iterator[None]:
    """While active, turns what the libraries raise about a broken, missing or foreign model into one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 300, placeholder=" …")
        where = "cannot be loaded; get another copy or choose another"
        if not Path(model).exists():
            where = "not found here, and could not be fetched from the hub; check the name and the connection"
        raise ModelError(f"{model}: {where} ({reason})") from error


@contextmanager
def quiet() -> Iterator[None]:
    """While active, the libraries log nothing and show no progress bars. Their errors are raised anyway."""
    import diffusers.utils.logging
    import huggingface_hub.utils.logging
    import transformers.utils.logging

    with_bars: tuple[Any, ...] = (diffusers.utils.logging, transformers.utils.logging)
    libraries: tuple[Any, ...] = (*with_bars, huggingface_hub.utils.logging)
    verbosities = [library.get_verbosity() for library in libraries]
    showing = [library for library in with_bars if library.is_progress_bar_enabled()]
    for library in libraries:
        library.set_verbosity(logging.CRITICAL)
    for library in showing:
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for argument in ("local_dir_use_symlinks", "clean_up_tokenization_spaces"):
                # some versions of the libraries warn each other that its meaning has changed or will
                warnings.filterwarnings("ignore", f".*{argument}")
            yield
    finally:
        for library, verbosity in zip(libraries, verbosities, strict=True):
            library.set_verbosity(verbosity)
        for library in showing:
            library.enable_progress_bar()
