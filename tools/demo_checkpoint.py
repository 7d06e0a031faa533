"""Checkpoints that survive an interruption, a learning-rate schedule, and a line of progress."""

import math
import time
from pathlib import Path
from typing import Any

import torch

SECONDS_BETWEEN_CHECKPOINTS = 120
SECONDS_BETWEEN_REPORTS = 30


class Checkpoint:
    """The state of one stage in one file, replaced atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = time.monotonic()

    def restore(self, **parts: Any) -> int:
        """Load the parts' states if there is a checkpoint; return the step to go on from."""
        if not self.path.exists():
            return 0
        states = torch.load(self.path, "cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(states[name])
        return int(states["step"])

    def save_now_and_then(self, step: int, *, last: bool, **parts: Any) -> None:
        """Save the parts' states when it is time, or when this is the last step."""
        if not last and time.monotonic() - self._written < SECONDS_BETWEEN_CHECKPOINTS:
            return
        states = {name: part.state_dict() for name, part in parts.items()}
        draft = self.path.with_suffix(".tmp")
        torch.save({"step": step, **states}, draft)
        draft.replace(self.path)
        self._written = time.monotonic()


class Progress:
    """Prints running means of a stage's losses every half minute."""

    def __init__(self, stage: str, steps: int) -> None:
        self.stage, self.steps = stage, steps
        self._last = self._start = time.monotonic()
        self._sums: dict[str, float] = {}
        self._count = 0

    def report(self, step: int, **values: float) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_REPORTS and step + 1 < self.steps:
            return
        means = " ".join(f"{name} {total / self._count:.4f}" for name, total in self._sums.items())
        print(f"{self.stage} {step + 1}/{self.steps} {means} ({now - self._start:.0f} s)", flush=True)
        self._last, self._sums, self._count = now, {}, 0


def learning_rate(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up, then a half cosine down to 2 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    part = (step - warmup) / max(1, steps - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part)))
