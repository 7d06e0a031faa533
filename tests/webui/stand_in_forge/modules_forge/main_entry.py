from typing import Any

from modules import sd_models

chosen: dict[str, Any] = {"checkpoint_info": None}  # in the settings


def refresh_model_loading_parameters() -> None:
    sd_models.model_data.forge_loading_parameters = {**chosen, "additional_modules": [], "unet_storage_dtype": None}
