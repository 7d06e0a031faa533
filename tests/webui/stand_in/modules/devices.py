from contextlib import nullcontext as autocast
from contextlib import nullcontext as without_autocast

__all__ = ["autocast", "torch_gc", "without_autocast"]


def torch_gc() -> None:
    """Frees a device's cache."""
