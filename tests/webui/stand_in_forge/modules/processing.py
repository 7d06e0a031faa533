from typing import Any

from backend import memory_management
from image_jobs import (
    StableDiffusionProcessing,
    StableDiffusionProcessingImg2Img,
    StableDiffusionProcessingTxt2Img,
)

from modules import sd_models

__all__ = ["StableDiffusionProcessing", "StableDiffusionProcessingImg2Img", "StableDiffusionProcessingTxt2Img"]

need_global_unload = False  # since the settings of the memory were changed


def manage_model_and_prompt_cache(p: Any) -> None:
    """Before each image."""
    global need_global_unload
    p.sd_model, loaded_now = sd_models.forge_model_reload()
    if need_global_unload and not loaded_now:
        memory_management.unload_all_models()
    if need_global_unload:
        p.clear_prompt_cache()
    need_global_unload = False
