"""The stand-in's checkpoints tell their family in the key of a tensor."""

from typing import Any

from torch import Tensor

PREFIX = "model.diffusion_model."


def unet_prefix_from_state_dict(weights: dict[str, Tensor]) -> str:
    assert all(weight.is_meta for weight in weights.values())  # nothing is read before the family is known
    return PREFIX if any(key.startswith(PREFIX) for key in weights) else "model."


def config(family: str, channels: int) -> Any:
    described = {"unet_config": {"in_channels": channels}, "inpaint_model": lambda self: channels > 4}
    return type(family, (), described)()


def model_config_from_unet(weights: dict[str, Tensor], prefix: str, use_base_if_no_match: bool = False) -> Any:
    assert "model.diffusion_model.a_part_without_the_other" not in weights
    for key, weight in weights.items():
        if key.startswith(f"{prefix}family."):
            return config(key.rpartition(".")[2], weight.shape[0])
    return None
