from typing import Any

from torch import nn


class Merged(nn.Module):
    """What a part of the model is while tokens are merged."""


def apply_token_merging(model: Any, ratio: float) -> None:
    """Replaces a class, for these are no attributes and go back by their own way only."""
    model.model.__class__ = Merged if ratio else nn.Module
