"""What to do where memory runs out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch

from embedding_estimate.host import BorrowedModel
from embedding_estimate.probes import Probes, probe
from embedding_estimate.sensitivity import Sensitivity, by_differences, by_gradient, uniform
from embedding_estimate.teacher import Side, States

DIFFERENCE_STATES = 6  # each costs a forward pass for every cross-attention


def ran_out(error: BaseException) -> bool:
    """Whether it says that there is no memory left, on whatever device."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "allocate memory")
    )


@dataclass(frozen=True)
class Way:
    """To find out how much each layer counts."""

    name: str
    sensitivity: Sensitivity
    batch: int = 1
    checkpointed: bool = False
    states: int = 0  # at most; 0: all


class Prober:
    """Probes states in the best way that there is memory for; a way that failed is not tried again."""

    def __init__(self, model: BorrowedModel, rows: float, batch: int, seed: int, checkpointed: bool):
        """`rows` is the share kept of the rows that are asked for."""
        self.model = model
        self.rows = rows
        self.generator = torch.Generator().manual_seed(seed)
        self.notes: list[str] = []
        self._ways = [
            Way("gradients", by_gradient, batch, checkpointed),
            Way("gradients, one state at a time and with checkpoints", by_gradient, checkpointed=True),
            Way("forward differences on a few states", by_differences, states=DIFFERENCE_STATES),
            Way("nothing: all layers count the same", uniform),
        ]

    def __call__(self, side: Side, states: States, rows: int) -> Probes:
        """Raises the last way's error where there is no memory for that either."""
        while True:
            way = self._ways[0]
            try:
                with self.model.checkpointed() if way.checkpointed else nullcontext():
                    return probe(
                        self.model,
                        side,
                        states.spread(way.states or len(states)),
                        rows=max(1, int(rows * self.rows)),
                        batch=way.batch,
                        generator=self.generator,
                        sensitivity=way.sensitivity,
                    )
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error) or len(self._ways) == 1:
                    raise
            del self._ways[0]
            self.notes.append(f"out of memory: how much each layer counts was found by {self._ways[0].name}")
