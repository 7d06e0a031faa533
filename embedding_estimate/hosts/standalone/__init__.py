"""A host of its own: models that this process loads by diffusers."""
