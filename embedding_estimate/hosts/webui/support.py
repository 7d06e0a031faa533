"""What is loaded in the WebUI, and its settings as far as all of them share these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from embedding_estimate.errors import ModelError
from embedding_estimate.model.host import MODES, Family, ModelInfo, Prediction

LATENT_SCALE = 8  # pixels per latent cell, of every Stable Diffusion
SIZES: Mapping[Family, int] = {"sd1": 512, "sd2": 512, "sdxl": 1024}  # pixels
SD2_V_SIZE = 768  # what SD2 with v-prediction was trained at, whatever its configuration says


def refuse_settings() -> None:
    """Raises `ModelError` for settings of the WebUI's that this program cannot work with."""
    from modules import shared

    if getattr(shared.opts, "use_old_emphasis_implementation", False):
        raise ModelError("the old emphasis implementation is switched on in the settings: switch it off")
    if unet := _replaced_unet():
        raise ModelError(f"{unet} stands in for the U-Net and passes no gradient back: choose None as 'SD Unet'")


def without_token_merging() -> Sequence[str]:
    """The note where the settings ask for token merging and it cannot be heeded, because it is drawn at random."""
    from modules import shared

    return ("made without the settings' token merging",) if shared.opts.token_merging_ratio else ()


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


def checkpoint(model: Any) -> tuple[str, str]:
    """The name and the short hash of what is loaded; no hash where the WebUI was told to make none."""
    described = model.sd_checkpoint_info
    return str(getattr(described, "name_for_extra", "") or described.name), str(described.shorthash or "")


def family(widths: Mapping[str, int]) -> Family:
    """The family that has text encoders of these keys."""
    return "sdxl" if "clip_g" in widths else "sd2" if "clip_h" in widths else "sd1"


def info(
    model: Any,
    named: tuple[str, str],
    prediction: Prediction,
    clip_skip: int,
    widths: Mapping[str, int],
    chunk_tokens: int,
    added: Sequence[str],
) -> ModelInfo:
    """What is loaded and how the WebUI is set up to use it.

    `named` is the checkpoint's name and short hash, `added` are the networks that the settings add.
    """
    name, shorthash = named
    of_family = family(widths)
    size = int(getattr(model, "image_size", 0) or 0) * LATENT_SCALE or SIZES[of_family]
    return ModelInfo(
        family=of_family,
        prediction=prediction,
        name=name,
        hash=shorthash,
        widths=widths,
        chunk_tokens=chunk_tokens,
        latent_channels=int(getattr(model, "latent_channels", 4)),
        latent_scale=LATENT_SCALE,
        default_size=SD2_V_SIZE if (of_family, prediction, size) == ("sd2", "v", SIZES["sd2"]) else size,
        clip_skip=clip_skip,
        emphasis=emphasis(),
        networks=added,
    )


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
