"""The bundled Stable Diffusion 1 model, and tiny random models for tests."""

from pathlib import Path

__all__ = ["demo_model_path"]


def demo_model_path() -> Path:
    """The folder of the bundled model, in diffusers layout."""
    return Path(__file__).resolve().parent / "shapes"
