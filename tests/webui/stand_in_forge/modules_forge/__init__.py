"""A stand-in for Forge's package of this name."""
