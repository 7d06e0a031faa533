"""What to do where memory runs out while states are probed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from embedding_estimate.errors.out_of_memory import first_that_fits
from embedding_estimate.model.host import BorrowedModel
from embedding_estimate.teaching.batches import MOST, Together, keeping
from embedding_estimate.teaching.probes import Probes, probe
from embedding_estimate.teaching.recall import Recall, digest
from embedding_estimate.teaching.sensitivity import Sensitivity, by_differences, by_gradient, uniform
from embedding_estimate.teaching.sides import Side, States

# latent cells in one backward pass, unless the device tells its memory; a state of more goes alone, with checkpoints
TOGETHER = 32 * 32
DIFFERENCE_STATES = 6  # each costs a forward pass for every cross-attention


def together(model: BorrowedModel, cells: int, batch: int, *, checkpointed: bool) -> Together:
    """How many states of so many latent cells are probed in one pass; a `batch` of 0 asks for as many as fit."""
    return keeping(model, batch, cells, TOGETHER, checkpointed=checkpointed)


@dataclass(frozen=True)
class Way:
    """To find out how much each layer counts."""

    name: str
    sensitivity: Sensitivity
    batch: int = 1  # 0: as many as fit
    checkpointed: bool = False
    states: int = 0  # at most; 0: all


class Prober:
    """Probes states in the best way that there is memory for; a way that failed is not tried again."""

    def __init__(
        self,
        model: BorrowedModel,
        *,
        rows: float,
        batch: int,
        seed: int,
        checkpointed: bool,
        on_pass: Callable[[int], None] = lambda states: None,
        recall: Recall | None = None,
    ):
        """`rows` is the share kept of the rows that are asked for; `on_pass` is told of the states of each pass.
        Probes that `recall` has are not made again."""
        self.model = model
        self.rows = rows
        self.generator = torch.Generator().manual_seed(seed)
        self.on_pass = on_pass
        self.recall = recall
        self.notes: list[str] = []
        self._most = MOST  # states together, where it is left to the memory
        self._ways = [
            Way("gradients", by_gradient, batch, checkpointed),
            Way("gradients, one state at a time and with checkpoints", by_gradient, checkpointed=True),
            Way("forward differences on a few states", by_differences, states=DIFFERENCE_STATES),
            Way("nothing: all layers count the same", uniform),
        ]

    def __call__(self, seen: Sequence[tuple[Side, States]], rows: int) -> Probes:
        """Raises the last way's error where there is no memory for that either."""
        return first_that_fits(self._attempts(seen, rows))

    def _attempts(self, seen: Sequence[tuple[Side, States]], rows: int) -> Iterator[Callable[[], Probes]]:
        """Each way in turn, and the same again where the host has given memory back. To ask for the next is to say that
        memory ran out in the last."""
        while True:
            way = self._ways[0]
            yield partial(self._probe, way, seen, rows)
            if len(self._ways) == 1:
                return
            if self.model.release():
                continue
            failed = self._together(way, seen)
            if not way.batch and failed.latents > 1:
                self._most = failed.latents // 2
                continue
            del self._ways[0]
            if way.sensitivity is by_gradient and failed == Together(1, True):
                self._ways = [other for other in self._ways if other.sensitivity is not by_gradient]  # the same again
            self.notes.append(f"out of memory: how much each layer counts was found by {self._ways[0].name}")

    def _together(self, way: Way, seen: Sequence[tuple[Side, States]]) -> Together:
        """How the states go through."""
        cells, states = seen[0][1].x[0, 0].numel(), max(len(states) for _, states in seen)
        several = together(self.model, cells, way.batch, checkpointed=way.checkpointed)
        return several if way.batch else replace(several, latents=min(several.latents, states, self._most))

    def _probe(self, way: Way, seen: Sequence[tuple[Side, States]], rows: int) -> Probes:
        seen = [(side, _at_most(way.states / len(seen), states)) for side, states in seen]
        rows, several = max(1, int(rows * self.rows)), self._together(way, seen)
        if self.recall is None:
            return self._probed(way, seen, rows, several)
        attentions = self.model.cross_attentions()
        key = digest(way.name, rows, several.latents, self.generator.get_state(), *_content(seen))
        if kept := self.recall.find(key):
            state, *tensors = kept
            self.generator.set_state(state)
            self.on_pass(sum(len(states) for _, states in seen))
            return Probes.of_tensors(tensors, attentions, self.model.device)
        probes = self._probed(way, seen, rows, several)
        self.recall.keep(key, [self.generator.get_state(), *probes.tensors(attentions)])
        return probes

    def _probed(self, way: Way, seen: Sequence[tuple[Side, States]], rows: int, several: Together) -> Probes:
        with self.model.checkpointed() if several.checkpointed else nullcontext():
            return probe(
                self.model,
                seen,
                rows=rows,
                batch=several.latents,
                generator=self.generator,
                sensitivity=way.sensitivity,
                on_pass=self.on_pass,
            )


def _content(seen: Sequence[tuple[Side, States]]) -> Iterator[Tensor | int | None]:
    """All that probes depend on but the model."""
    for side, states in seen:
        yield from (states.x, states.sigma, states.evaluation)
        for stage in side.stages:
            yield stage.until
            for conditioning, _ in stage.parts:
                yield from (conditioning.context, conditioning.vector)


def _at_most(share: float, states: States) -> States:
    """So many of them, one at least, spread over the sampling; all for 0."""
    return states.spread(round(share)) if share else states
