from contextlib import nullcontext as autocast
from contextlib import nullcontext as without_autocast

import torch

__all__ = ["autocast", "device", "torch_gc", "without_autocast"]

device = torch.device("cpu")


def torch_gc() -> None:
    """Frees a device's cache."""
