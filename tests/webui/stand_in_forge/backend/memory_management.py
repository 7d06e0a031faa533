"""Brings models in. What it moves or merges within inference mode is an inference tensor from then on."""

from typing import Any

import torch
from torch import nn

current_loaded_models: list[Any] = []
asked: list[float] = []  # bytes to be left free, at each call
SPACE = 2  # models that fit in


def load_models_gpu(models: list[Any], memory_required: float = 0, hard_memory_preservation: float = 0) -> None:
    asked.append(memory_required)
    for patcher in models:
        if patcher in current_loaded_models:
            current_loaded_models.remove(patcher)
        else:
            remade(patcher.model)
        current_loaded_models.insert(0, patcher)
    del current_loaded_models[SPACE:]


def load_model_gpu(patcher: Any) -> None:
    load_models_gpu([patcher])


def remade(model: nn.Module) -> None:
    """A parameter is put anew into its place, as where a LoRA is merged into it."""
    part = next(part for part in model.modules() if "weight" in part._parameters)
    part._parameters["weight"] = nn.Parameter(part._parameters["weight"].detach().clone())


def unload_all_models() -> None:
    current_loaded_models.clear()
    torch.clear_autocast_cache()
