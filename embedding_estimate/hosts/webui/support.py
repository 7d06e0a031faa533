"""What is loaded in the WebUI, and whether this program can work with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from embedding_estimate.errors import ModelError
from embedding_estimate.model.host import MODES, Family, ModelInfo

LATENT_SCALE = 8  # pixels per latent cell, of every Stable Diffusion
SIZES: Mapping[Family, int] = {"sd1": 512, "sd2": 512, "sdxl": 1024}  # pixels
SD2_V_SIZE = 768  # what SD2 with v-prediction was trained at, whatever its configuration says


def refuse_forge() -> None:
    """Raises `ModelError` in Forge and Forge Neo."""
    if find_spec("backend") is not None:  # theirs, which reForge has not
        raise ModelError("this is Forge, whose models are kept in another way: use AUTOMATIC1111's WebUI or reForge")


def at_hand() -> Any:
    """The model that is there now. Loads, changes and waits for nothing. Raises `ModelError` as `checked` does."""
    from modules import sd_models, shared

    refuse_forge()
    data = getattr(sd_models, "model_data", None)  # asking `shared` for the model would load it
    return _of_a_known_kind(data.sd_model if data else shared.sd_model)


def checked(model: Any) -> Any:
    """The loaded model. Raises `ModelError`, by name, for what cannot be used."""
    from modules import shared

    refuse_forge()
    _of_a_known_kind(model)
    if getattr(shared.opts, "use_old_emphasis_implementation", False):
        raise ModelError("the old emphasis implementation is switched on in the settings: switch it off")
    if shared.cmd_opts.lowvram and not hasattr(model, "forge_objects"):  # reForge manages memory in another way
        raise ModelError(
            "--lowvram keeps the U-Net in pieces, and no gradient gets back through it: start the WebUI with --medvram"
        )
    if unet := _replaced_unet():
        raise ModelError(f"{unet} stands in for the U-Net and passes no gradient back: choose None as 'SD Unet'")
    return model


def _of_a_known_kind(model: Any) -> Any:
    if model is None:
        raise ModelError("no checkpoint is loaded: choose one at the top of the page")
    if reason := _reason(model):
        raise ModelError(f"{checkpoint(model)[0]}: {reason}")
    return model


def _replaced_unet() -> str:
    """The name of the network that runs in the U-Net's place, such as TensorRT's; empty where there is none."""
    try:
        from modules import sd_unet
    except ImportError:  # an early WebUI
        return ""
    option = sd_unet.get_unet_option()
    if option is None:
        sd_unet.apply_unet()  # takes out the one of the last image, as the WebUI does before the next
        return ""
    return str(option.label)


def _reason(model: Any) -> str:
    """Why a model is not supported; empty where it is."""
    if getattr(model, "is_sd3", False):
        return "Stable Diffusion 3 has other text encoders: choose an SD1, SD2 or SDXL checkpoint"
    if getattr(model, "is_sdxl_inpaint", False) or _conditioning_key(model) in ("hybrid", "concat"):
        return "an inpainting checkpoint is conditioned on a picture too: choose the plain checkpoint"
    if getattr(model, "cond_stage_key", "") == "edit":
        return "an instruct-pix2pix checkpoint is conditioned on a picture too: choose the plain checkpoint"
    if _conditioning_key(model) == "crossattn-adm":
        return "an unCLIP checkpoint is conditioned on a picture too: choose the plain checkpoint"
    encoders = _encoders(model)
    if not all(hasattr(encoder, "process_tokens") for encoder in encoders):
        kinds = ", ".join(type(encoder).__name__ for encoder in encoders)
        return f"its text encoder ({kinds}) is none of CLIP's: choose an SD1, SD2 or SDXL checkpoint"
    if getattr(model, "is_sdxl", False) and len(encoders) != 2:
        return "a refiner has one text encoder only: choose the base checkpoint"
    return ""


def _encoders(model: Any) -> list[Any]:
    conditioner = getattr(model, "conditioner", None)
    if conditioner is None:
        return [model.cond_stage_model]
    return [each for each in conditioner.embedders if hasattr(each, "process_tokens")]


def _conditioning_key(model: Any) -> str:
    return str(getattr(getattr(model, "model", None), "conditioning_key", ""))


def checkpoint(model: Any) -> tuple[str, str]:
    """The name and the short hash of what is loaded; no hash where the WebUI was told to make none."""
    described = model.sd_checkpoint_info
    return str(getattr(described, "name_for_extra", "") or described.name), str(described.shorthash or "")


def info(model: Any, widths: Mapping[str, int], chunk_tokens: int, added: Sequence[str]) -> ModelInfo:
    """What is loaded and how the WebUI is set up to use it; `added` are the networks that its settings add."""

    family: Family = "sdxl" if "clip_g" in widths else "sd2" if "clip_h" in widths else "sd1"
    v = getattr(model, "parameterization", "eps") == "v"
    name, shorthash = checkpoint(model)
    size = int(getattr(model, "image_size", 0) or 0) * LATENT_SCALE or SIZES[family]
    return ModelInfo(
        family=family,
        prediction="v" if v else "epsilon",
        name=name,
        hash=shorthash,
        widths=widths,
        chunk_tokens=chunk_tokens,
        latent_channels=int(getattr(model, "latent_channels", 4)),
        latent_scale=LATENT_SCALE,
        default_size=SD2_V_SIZE if family == "sd2" and v and size == SIZES["sd2"] else size,
        clip_skip=clip_skip(model, family),
        emphasis=emphasis(),
        networks=added,
    )


def clip_skip(model: Any, family: str) -> int:
    """The setting for clip skip, or 1 where it does nothing.

    AUTOMATIC1111 heeds it in SDXL by a setting of its own and never in SD2; reForge in both, beyond the layer that
    they end at anyway.
    """
    from modules import shared

    chosen = int(shared.opts.CLIP_stop_at_last_layers)
    if family == "sd1":
        return chosen
    least = [encoder.minimal_clip_skip for encoder in _encoders(model) if hasattr(encoder, "minimal_clip_skip")]
    if least:
        return chosen if chosen > min(least) else 1
    return chosen if family == "sdxl" and getattr(shared.opts, "sdxl_clip_l_skip", False) else 1


def emphasis_modes() -> tuple[str, ...]:
    """Those that apply weights; a WebUI before 1.8 has no choice of them."""
    from modules import shared

    return MODES if hasattr(shared.opts, "emphasis") else ()


@contextmanager
def mode(emphasis: str) -> Iterator[None]:
    """Within, the setting is that one of the `emphasis_modes`."""
    from modules import shared

    data = shared.opts.data  # as an attribute it could be frozen
    before = shared.opts.emphasis
    data["emphasis"] = emphasis
    try:
        yield
    finally:
        data["emphasis"] = before


def emphasis() -> str:
    """A WebUI before 1.8 knows the first mode only, or none."""
    from modules import shared

    mode = getattr(shared.opts, "emphasis", None)
    if mode is None:
        return "Original" if shared.opts.enable_emphasis else "None"
    return str(mode)
