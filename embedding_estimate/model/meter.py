"""How much work a borrowed model was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from embedding_estimate.model.forwarding import ForwardingModel
from embedding_estimate.model.host import BorrowedModel, Conditioning


class Meter(ForwardingModel):
    """A borrowed model that counts the U-Net's passes of one latent each. What takes time in it may be interrupted."""

    def __init__(self, model: BorrowedModel, on_pass: Callable[[int], None] = lambda latents: None):
        """`on_pass` gets the number of latents of each call."""
        super().__init__(model)
        self._on_pass = on_pass
        self._check: Callable[[], None] = lambda: None
        self.forwards = 0
        self.backwards = 0

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
        self.forwards += len(x)
        self.backwards += len(x) if denoised.requires_grad else 0
        self._on_pass(len(x))
        return denoised
