"""The Stable Diffusion WebUI as a host: AUTOMATIC1111 and its kin."""
