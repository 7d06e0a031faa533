"""Reads and checks the numbers in a model's configuration files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from embedding_estimate.errors import ModelError, nearest, quoted
from embedding_estimate.model.contexts import NEGATIVE_PROMPTS, PROMPTS, Contexts
from embedding_estimate.model.contexts import read as read_contexts
from embedding_estimate.model.host import Family, Prediction

WAY_OUT = "correct it, or get another copy"
MOST_CELLS = 256  # of a latent's side: 2,048 pixels, the most that a picture may have
MOST_LEVELS = 100_000
MOST_SCALE = 1000  # of latents
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SCHEDULE_KEYS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)


def contexts(folder: Path) -> dict[str, Contexts]:
    """The prompts that embeddings are trained in, in the model's own vocabulary, by side of the guidance.

    They are in `contexts.json` in the model's folder. Without that file, every model has the same ones. Raises
    `ModelError` if the file is wrong.
    """
    path = folder / "contexts.json"
    if not path.is_file():
        return {"prompt": PROMPTS, "negative": NEGATIVE_PROMPTS}
    try:
        return read_contexts(path)
    except ValueError as error:
        raise ModelError(f"{error}; {WAY_OUT}") from error


def whole(where: str, key: str, value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high` in a file. Raises `ModelError`; its message begins with `where`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ModelError(
            f"{where}: {key}={quoted(value)}: a whole number from {low:,} to {high:,} is needed; {WAY_OUT}"
        )
    return value


def between(where: str, key: str, value: Any, low: float, high: float) -> float:
    """A number above `low` and below `high` in a file. Raises `ModelError`; its message begins with `where`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value < high:
        raise ModelError(f"{where}: {key}={quoted(value)}: a number between {low:g} and {high:g} is needed; {WAY_OUT}")
    return float(value)


def sample_size(where: str, value: Any, family: Family, prediction: Prediction) -> int:
    """The side of a latent, in cells, that a U-Net was trained at: the smaller one if there are a height and a width,
    the family's own if there is none. Raises `ModelError` for anything else."""
    if value is None:
        sizes: dict[Family, int] = {"sd1": 64, "sd2": 96 if prediction == "v" else 64, "sdxl": 128}
        return sizes[family]
    sides = value if isinstance(value, (list, tuple)) and len(value) == 2 else [value]
    return min(whole(where, "sample_size", side, 1, MOST_CELLS) for side in sides)


def alphas_cumprod(where: str, schedule: Mapping[str, Any]) -> Tensor:
    """The noise schedule (T,) of a scheduler's configuration. The zero of a zero terminal SNR becomes 2^-24.

    Raises `ModelError` for values that do not give a schedule.
    """
    from diffusers import EulerDiscreteScheduler

    known = {key: schedule[key] for key in SCHEDULE_KEYS if schedule.get(key) is not None}
    for key, value in known.items():
        _check(where, key, value)
    levels: Tensor = EulerDiscreteScheduler(**known).alphas_cumprod
    return levels


def _check(where: str, key: str, value: Any) -> None:
    if key == "num_train_timesteps":
        whole(where, key, value, 2, MOST_LEVELS)
    elif key == "beta_schedule":
        if value not in BETA_SCHEDULES:
            raise ModelError(f"{where}: {key}={quoted(value)} is unknown: {nearest(str(value), BETA_SCHEDULES)}")
    elif key == "rescale_betas_zero_snr":
        if not isinstance(value, bool):
            raise ModelError(f"{where}: {key}={quoted(value)}: true or false is needed; {WAY_OUT}")
    elif key == "trained_betas":
        if not isinstance(value, (list, tuple)) or not 2 <= len(value) <= MOST_LEVELS:
            raise ModelError(
                f"{where}: {key}={quoted(value)}: a list of 2 to {MOST_LEVELS:,} numbers is needed; {WAY_OUT}"
            )
        for beta in value:
            between(where, key, beta, 0, 1)
    else:
        between(where, key, value, 0, 1)
