from typing import Any

from torch import nn

from modules import shared


def unload_model_weights(sd_model: Any = None, info: Any = None) -> None:
    """For its API and a button, whatever else is going on."""
    shared.sd_model = None


class Merged(nn.Module):
    """What a part of the model is while tokens are merged."""


def apply_token_merging(model: Any, ratio: float) -> None:
    """Replaces a class, for these are no attributes and go back by their own way only."""
    model.model.__class__ = Merged if ratio else nn.Module
