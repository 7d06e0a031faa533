"""A small Stable Diffusion 1 model that ships with the package, and tiny random models for plumbing."""

from pathlib import Path

__all__ = ["demo_model_path"]


def demo_model_path() -> Path:
    """Folder of the shipped demo model, in diffusers layout."""
    return Path(__file__).resolve().parent / "shapes"
