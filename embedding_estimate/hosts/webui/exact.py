"""A text encoder in fp32 beside the WebUI's own in half precision.

Training asks for losses whose differences are far below half precision's rounding, and a line search would end there.
What is matched, and what the vectors are judged by, comes from the WebUI's own encoder all the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from embedding_estimate.errors.out_of_memory import first_that_fits
from embedding_estimate.hosts.webui.replacing import replaced

ROUNDING = {"unet_needs_upcast", "force_fp16"}  # switches of the WebUI's, not all of them in every version


class ExactCopy:
    """The encoder of one of the WebUI's text engines in fp32, made when it is first asked for."""

    def __init__(self, engine: Any):
        """`engine` is what the WebUI wraps around a CLIP; see `engine.Engine`."""
        self.engine = engine
        self.needed = any(weight.element_size() < 4 for weight in engine.wrapped.parameters())
        self.refused = False  # for want of memory
        self._own: nn.Module = engine.wrapped
        self._copy: nn.Module | None = None

    def fits(self) -> bool:
        """Whether there is a copy, which is made by the first call; not where there is no memory for it."""
        if self._copy is None and not self.refused:
            shared = [self.engine.hijack, getattr(self._own, "tokenizer", None)]
            self._copy = first_that_fits(
                [lambda: copy.deepcopy(self._own, {id(each): each for each in shared}).float(), lambda: None]
            )
            self.refused = self._copy is None
        return self._copy is not None

    def release(self, for_good: bool) -> bool:
        """Gives the copy's memory back, at least until it is asked for again; whether there was one."""
        there, self._copy = self._copy is not None, None
        self.refused |= there and for_good
        return there

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Within, the engine encodes with the copy, and the WebUI does not round vectors to the U-Net's precision.

        Not for the inside of the WebUI's autocast: what that does on some devices cannot be switched off.
        """
        from modules import devices

        with ExitStack() as stack:
            for switch in ROUNDING & vars(devices).keys():
                stack.enter_context(replaced(devices, switch, False))
            self.engine.wrapped = self._copy
            try:
                yield
            finally:
                self.engine.wrapped = self._own
