from typing import Any

from modules import shared

unet_options: list[Any] = []


def get_unet_option() -> Any:
    """What stands in for the U-Net; by default it is looked for by the name of the loaded checkpoint."""
    name = shared.sd_model.sd_checkpoint_info.name_for_extra
    return next((option for option in unet_options if option.model_name == name), None)


def apply_unet() -> None:
    get_unet_option()
