"""How much work a borrowed model was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from embedding_estimate.model.forwarding import ForwardingModel
from embedding_estimate.model.host import BorrowedModel, Conditioning

Stage = Literal["prepare", "train", "measure"]


@dataclass(frozen=True)
class Passes:
    """Passes of one latent each: through the U-Net, and back."""

    forwards: int = 0
    backwards: int = 0

    def __add__(self, more: Passes) -> Passes:
        return Passes(self.forwards + more.forwards, self.backwards + more.backwards)

    def __sub__(self, fewer: Passes) -> Passes:
        return self + fewer * -1

    def __mul__(self, times: int) -> Passes:
        return Passes(self.forwards * times, self.backwards * times)


@dataclass(frozen=True)
class StagePasses:
    """The passes of an estimate, by what they are for."""

    prepare: Passes = Passes()  # states are recorded and probed
    train: Passes = Passes()  # steps, checks and previews
    measure: Passes = Passes()  # figures and images

    @property
    def total(self) -> Passes:
        """Those of all stages."""
        return self.prepare + self.train + self.measure


class Meter(ForwardingModel):
    """A borrowed model that counts the U-Net's passes. What takes time in it may be interrupted."""

    def __init__(self, model: BorrowedModel, on_pass: Callable[[int], None] = lambda latents: None):
        """`on_pass` gets the number of latents of each call."""
        super().__init__(model)
        self._on_pass = on_pass
        self._check: Callable[[], None] = lambda: None
        self.passes = StagePasses()
        self._stage: Stage = "prepare"

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Within, passes count as those of this stage; before any, as those of "prepare"."""
        before, self._stage = self._stage, stage
        try:
            yield
        finally:
            self._stage = before

    @contextmanager
    def interruptible(self, check: Callable[[], None]) -> Iterator[None]:
        """Within, each call that takes time starts with `check`, such as `StopToken.check`."""
        before, self._check = self._check, check
        try:
            yield
        finally:
            self._check = before

    def _before_a_call(self) -> None:
        self._check()

    def denoise(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        denoised = super().denoise(x, sigma, conditioning)
        passes = Passes(len(x), len(x) if denoised.requires_grad else 0)
        self.passes = replace(self.passes, **{self._stage: getattr(self.passes, self._stage) + passes})
        self._on_pass(len(x))
        return denoised
