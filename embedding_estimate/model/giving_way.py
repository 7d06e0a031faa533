"""A model for work that can wait: it goes back to the host whenever somebody else wants it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

import torch

from embedding_estimate.errors import ModelError
from embedding_estimate.model.forwarding import ForwardingModel
from embedding_estimate.model.host import Host

POLL = 0.05  # seconds between two looks at who waits


class GivingWay(ForwardingModel):
    """A model that is borrowed within the context, and given back for a while before a call if others wait for it.

    Raises `ModelError` in a call if the host has another model afterwards, or the same with other options.

    >>> with GivingWay(host, stop.check) as model:
    ...     measure(model, task, vectors, batch=8)
    """

    def __init__(self, host: Host, check: Callable[[], None]):
        """`check` is called before each call that takes time; what it raises ends the work, also a wait."""
        self._host = host
        self._check = check
        self._loan = ExitStack()

    def __enter__(self) -> GivingWay:
        self._borrow()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._loan.__exit__(kind, error, trace)

    def _borrow(self) -> None:
        self._model = self._loan.enter_context(self._host.borrow(self._check))

    def _before_a_call(self) -> None:
        self._check()
        if not self._host.wanted():
            return
        lent, gradients = self.info, torch.is_grad_enabled()
        self._loan.close()
        while self._host.wanted():  # until they have it: not every lock serves who came first
            self._check()
            time.sleep(POLL)
        self._borrow()
        torch.set_grad_enabled(gradients)  # a host may set it where it lends
        if self.info != lent:
            raise ModelError("the model or its options were changed in between; start again with the ones from before")
