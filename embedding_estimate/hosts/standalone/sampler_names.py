"""The names of the samplers and sigma schedules, separate from `sampling.py`, because `--help` must not load torch."""

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
