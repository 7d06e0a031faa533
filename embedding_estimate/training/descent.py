"""One run of an optimizer over an objective."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.objectives.objective import Objective
from embedding_estimate.optimizers import FULL, make_optimizer, make_scheduler
from embedding_estimate.progress import StopReason, StopToken
from embedding_estimate.training.averaging import AVERAGED, Average
from embedding_estimate.training.handlers import NotFinite, Step, Watch, handlers
from embedding_estimate.training.preconditioning import preconditioned
from embedding_estimate.training.state import Training


def descend(
    training: Training,
    objective: Objective[Any],
    space: VectorSpace,
    watch: Watch,
    last_step: int,
    *,
    optimizer: str,
    rate: float,
    sparing: bool,
) -> StopReason:
    """Runs the optimizer of that name from the best vectors so far; returns why it ended.

    `rate` is in spreads per step. `sparing` goes through what an optimizer of `FULL` compares in more portions.
    """
    run = _Run(training, objective, space, last_step, optimizer, rate, sparing)
    beside = handlers(training, objective, watch, last_step)
    try:
        while training.step < last_step:
            step = run.step(watch.stop)
            for handle in beside:
                if reason := handle(step):
                    return reason
    except NotFinite:
        training.read_losses()
        return StopReason.DIVERGED
    return StopReason.DONE


class _Run:
    """The optimizer with all that it needs."""

    def __init__(
        self,
        training: Training,
        objective: Objective[Any],
        space: VectorSpace,
        last_step: int,
        optimizer: str,
        rate: float,
        sparing: bool,
    ):
        phase = objective.phase
        generator = torch.Generator().manual_seed(phase.seed)
        self.training, self.last_step = training, last_step
        self.full = optimizer in FULL
        fixed = objective.fixed(generator, sparing=sparing) if self.full else []
        self.draws = itertools.cycle(fixed) if self.full else iter(lambda: objective.draw(generator), None)
        # LBFGS asks for a hundred single numbers a step, and a GPU would make it wait for each
        device = torch.device("cpu") if self.full else space.device
        self.space = preconditioned(space, objective, training.best, self.draws, generator, device)
        self.leaves = self.space.leaves(training.best, device)
        self.optimizer = make_optimizer(optimizer, self.leaves.values(), rate)
        self.advance = make_scheduler(phase.scheduler, self.optimizer, max(1, last_step - training.step))
        self.evaluate = _Evaluation(
            objective, self.space, self.leaves, fixed or [next(self.draws)], again=not self.full
        )
        self.average = Average(self.leaves, 0.0 if self.full else AVERAGED)

    def step(self, stop: StopToken) -> Step:
        """One learning step; the next one's draw."""
        training = self.training
        training.step += 1
        before = [leaf.detach().clone() for leaf in self.leaves.values()] if self.full else []
        loss: Any = self.optimizer.step(self.evaluate)
        training.unread.append(loss)
        self.advance()
        self.average.update()
        if not self.full:
            self.evaluate.drawn = [next(self.draws)]
        stopped = stop.stopped
        stuck = self.full and all(map(torch.equal, before, self.leaves.values()))
        last = stopped or stuck or training.step == self.last_step
        return Step(training.step, loss, stopped, stuck, last, lambda: self.space.vectors(self.average.leaves))


@dataclass
class _Evaluation:
    """Loss and gradient, as an optimizer asks for them."""

    objective: Objective[Any]
    space: VectorSpace
    leaves: dict[str, Tensor]
    drawn: Sequence[Any]
    again: bool  # whether the draw changes, so that the same point has to be evaluated again
    at: list[Tensor] = field(default_factory=list)  # the leaves of the last evaluation
    loss: Tensor | None = None

    def __call__(self) -> Any:  # torch declares a float, and a tensor spares the device a wait
        """LBFGS begins each step where its last line search ended, which need not be computed twice."""
        if not self.again:
            if self.loss is not None and all(map(torch.equal, self.at, self.leaves.values())):
                return self.loss
            self.at = [leaf.detach().clone() for leaf in self.leaves.values()]
        for leaf in self.leaves.values():
            leaf.grad = None
        vectors = self.space.vectors(self.leaves)
        there = {key: value.detach().requires_grad_() for key, value in vectors.items()}  # sent to the device once
        losses = []
        for draw in self.drawn:  # one graph at a time
            loss = self.objective.loss(there, draw) / len(self.drawn)
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        gradients = [torch.zeros_like(value) if value.grad is None else value.grad for value in there.values()]
        torch.autograd.backward(list(vectors.values()), gradients)
        self.loss = torch.stack(losses).sum()
        return self.loss
