"""One run of an optimizer over an objective."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.files.tensor_tree import Tree
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
    resumed: Tree | None = None,
) -> StopReason:
    """Runs the optimizer of that name from the best vectors so far; returns why it ended.

    `rate` is in spreads per step. `sparing` goes through what an optimizer of `FULL` compares in more portions.
    `resumed` is the state of a run with the same arguments, as `watch.on_state` got it: that run goes on.
    """
    run = _Run(training, objective, space, last_step, optimizer, rate, sparing, resumed)
    without_progress = resumed["without_progress"] if resumed else 0
    beside = handlers(training, objective, watch, last_step, run.state, without_progress)
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
    """The optimizer with all that it needs.

    One that goes on is made as it was made first, from the vectors of then; what has changed since is restored. So its
    state holds neither the coordinates nor what it compares.
    """

    def __init__(
        self,
        training: Training,
        objective: Objective[Any],
        space: VectorSpace,
        last_step: int,
        optimizer: str,
        rate: float,
        sparing: bool,
        resumed: Tree | None,
    ):
        phase = objective.phase
        self.generator = generator = torch.Generator().manual_seed(phase.seed)
        self.training, self.last_step = training, last_step
        start, self.first_step = training.best, training.step
        if resumed:
            start = {key: value.to(space.device) for key, value in resumed["start"].items()}
            self.first_step = resumed["first_step"]
        self.start = start
        self.full = optimizer in FULL
        fixed = objective.fixed(generator, sparing=sparing) if self.full else []
        self.draws = itertools.cycle(fixed) if self.full else iter(lambda: objective.draw(generator), None)
        # LBFGS asks for a hundred single numbers a step, and a GPU would make it wait for each
        device = torch.device("cpu") if self.full else space.device
        self.space = preconditioned(space, objective, start, self.draws, generator, device)
        self.leaves = self.space.leaves(start, device)
        self.optimizer = make_optimizer(optimizer, self.leaves.values(), rate)
        self.scheduler = make_scheduler(phase.scheduler, self.optimizer, max(1, last_step - self.first_step))
        self.evaluate = _Evaluation(objective, self.space, self.leaves, fixed, again=not self.full)
        self.average = Average(self.leaves, 0.0 if self.full else AVERAGED)
        if resumed:
            self._restore(resumed)

    def step(self, stop: StopToken) -> Step:
        """One learning step."""
        training = self.training
        training.step += 1
        if not self.full:
            self.evaluate.drawn = [next(self.draws)]
        before = [leaf.detach().clone() for leaf in self.leaves.values()] if self.full else []
        loss: Any = self.optimizer.step(self.evaluate)
        training.unread.append(loss)
        if self.scheduler:
            self.scheduler.step()
        self.average.update()
        stopped = stop.stopped
        stuck = self.full and all(map(torch.equal, before, self.leaves.values()))
        last = stopped or stuck or training.step == self.last_step
        return Step(training.step, loss, stopped, stuck, last, lambda: self.space.vectors(self.average.leaves))

    def state(self) -> dict[str, Any]:
        """All that another run of the same arguments goes on from."""
        return {
            "start": self.start,
            "first_step": self.first_step,
            "leaves": self.leaves,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "average": self.average.state(),
            "generator": self.generator.get_state(),
        }

    def _restore(self, state: Tree) -> None:
        with torch.no_grad():
            for key, leaf in self.leaves.items():
                leaf.copy_(state["leaves"][key])
        optimizer = state["optimizer"]
        by_leaf = {int(place): values for place, values in optimizer["state"].items()}  # whose keys are texts in a file
        self.optimizer.load_state_dict({**optimizer, "state": by_leaf})
        if self.scheduler:
            self.scheduler.load_state_dict(dict(state["scheduler"]))
        self.average.restore(state["average"])
        self.generator.set_state(state["generator"])


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
