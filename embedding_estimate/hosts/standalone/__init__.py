"""A host without a WebUI: this process loads the models by diffusers."""
