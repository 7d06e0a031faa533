"""Makes a textual-inversion embedding from a prompt: no images, no tags."""

__version__ = "0.1.0"
