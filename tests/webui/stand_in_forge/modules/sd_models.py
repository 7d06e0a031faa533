from collections.abc import Callable
from typing import Any

import torch
from backend import memory_management

from modules import shared


class FakeInitialModel:
    """What is there until the first image."""

    cond_stage_model = None


class SdModelData:
    def __init__(self) -> None:
        self.sd_model: Any = FakeInitialModel()
        self.forge_loading_parameters: dict[str, Any] = {}  # the page's choice
        self.forge_hash = ""


model_data = SdModelData()
loaders: dict[str, Callable[[], Any]] = {}  # by file name, what loads a model from it


def unload_model_weights() -> None:
    memory_management.unload_all_models()


def unload_and_forget() -> None:
    """What `unload_model_weights` is in Neo."""
    memory_management.unload_all_models()
    model_data.sd_model = shared.sd_model = FakeInitialModel()
    model_data.forge_hash = ""


@torch.inference_mode()
def forge_model_reload() -> tuple[Any, bool]:
    """Loads what the page has chosen, where that is something else by now."""
    wanted = str(model_data.forge_loading_parameters)
    if model_data.forge_hash == wanted:
        return model_data.sd_model, False
    model_data.sd_model = None
    described = model_data.forge_loading_parameters["checkpoint_info"]
    model = loaders[described.filename]()
    model.sd_checkpoint_info = described
    model_data.sd_model = shared.sd_model = model
    model_data.forge_hash = wanted
    return model, True
