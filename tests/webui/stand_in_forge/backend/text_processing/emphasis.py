from typing import Any

import torch
from torch import Tensor

from embedding_estimate.hosts.standalone.emphasis import by_name


def get_current_option(name: str) -> Any:
    """The class that applies weights in a mode."""

    class Emphasis:
        def applied(self, z: Tensor, multipliers: list[list[float]]) -> Tensor:
            return by_name(name)(z, torch.tensor(multipliers, device=z.device))

    Emphasis.name = name
    return Emphasis
