"""Makes a textual-inversion embedding from a prompt: no images, no tags.

From Python, see `docs/python.md`:

    >>> from embedding_estimate import estimate
    >>> estimate("(red:1.5) circle", pipe, tokens=4).save("red-disc")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = [
    "Embedding",
    "EstimateError",
    "Progress",
    "Result",
    "Settings",
    "StopToken",
    "estimate",
    "load",
    "load_into",
]

if TYPE_CHECKING:
    from embedding_estimate.errors import EstimateError
    from embedding_estimate.files.embedding import Embedding
    from embedding_estimate.progress import Progress, StopToken
    from embedding_estimate.python_api.estimating import estimate
    from embedding_estimate.python_api.files import load, load_into
    from embedding_estimate.python_api.result import Result
    from embedding_estimate.settings import Settings
else:
    _MODULES = {
        "Embedding": "files.embedding",
        "EstimateError": "errors",
        "Progress": "progress",
        "Result": "python_api.result",
        "Settings": "settings",
        "StopToken": "progress",
        "estimate": "python_api.estimating",
        "load": "python_api.files",
        "load_into": "python_api.files",
    }

    def __getattr__(name: str) -> Any:
        """Imports what is asked for by then, since torch takes seconds."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
