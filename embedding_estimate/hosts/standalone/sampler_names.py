"""What the samplers and sigma schedules of `sampling.py` are called, apart from it: `--help` cannot wait for torch."""

SAMPLER_NAMES = (
    "DPM++ SDE",
    "DPM++ 2M",
    "DPM++ 2M SDE",
    "Euler",
    "Euler a",
    "Heun",
    "LMS",
    "DPM2",
    "DPM2 a",
    "DDIM",
    "UniPC",
)
SCHEDULE_NAMES = ("Automatic", "Karras", "Exponential", "Uniform", "Normal", "SGM Uniform", "DDIM", "Beta")
"""The first is the sampler's own choice, as in the WebUI."""
CHOICES = {"sampler": SAMPLER_NAMES, "schedule": SCHEDULE_NAMES}
"""By setting: what is left open to the host elsewhere."""
