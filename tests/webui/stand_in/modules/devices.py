from contextlib import nullcontext as autocast
from contextlib import nullcontext as without_autocast

__all__ = ["autocast", "without_autocast"]
