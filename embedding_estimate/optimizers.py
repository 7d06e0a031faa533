"""Optimizers, rate schedulers and losses by name: one row each.

Vectors are optimised in units of the spread (standard deviation) of the model's own token vectors, and the loss is
1 at the start, so one automatic rate per optimizer serves every model. torch is imported only where it is used:
the names are needed by `--help`.
"""

from __future__ import annotations

import importlib.util
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True)
class OptimizerRow:
    """What is known of one optimizer."""

    rate: float  # automatic rate, spreads per step, where nothing of the prompt is explained to start with
    power: int = 1  # how that rate shrinks with the distance left, see `automatic_rate`
    module: str = "torch.optim"
    package: str = "torch"  # what to install where the module is missing
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 270  # automatic number of learning steps


OPTIMIZERS: dict[str, OptimizerRow] = {
    "Adam": OptimizerRow(0.2, steps=160),
    "AdamW": OptimizerRow(0.2, steps=160),
    "Lion": OptimizerRow(0.03, module="lion_pytorch", package="lion-pytorch"),
    "Prodigy": OptimizerRow(1.0, 0, "prodigyopt", "prodigyopt"),
    "SGD": OptimizerRow(3.0, 2, options={"momentum": 0.9}),
    "Adagrad": OptimizerRow(0.3),
    "Adamax": OptimizerRow(0.1),
    "LBFGS": OptimizerRow(
        1.0,
        0,
        options={
            "max_iter": 1,
            "max_eval": 25,  # of one line search; later versions of torch allow none unless told
            "history_size": 50,
            "tolerance_grad": 0,
            "tolerance_change": 0,
            "line_search_fn": "strong_wolfe",
        },
    ),
    "RMSprop": OptimizerRow(0.03),
}
REMOVED_OPTIMIZERS = ("Adadelta", "ASGD", "NAdam", "RAdam", "Rprop")
"""Of earlier versions, which older files may name: they were behind the others, or never measured."""

FULL = ("LBFGS",)
"""Those that need one function all along: their curvature means nothing where each step draws anew."""

MOST_EVALUATIONS = 27
"""Of the function in one step of LBFGS: where it stands, and torch's line search of 25 at most behind the first."""

AUTOMATIC = "Automatic"
BY_PART = {"Attention": "LBFGS"}
"""What `AUTOMATIC` stands for, by training part; Adam where it is not named."""

FEW_STEPS = 80
CHEAP_STEPS = 140  # of one prompt instead of many


def automatic_steps(name: str, part: str, *, alone: bool = False) -> int:
    """The number of learning steps: few where the Attention part's squares are solved for by one of `FULL`."""
    if part == "Attention" and name in FULL:
        return CHEAP_STEPS if alone else FEW_STEPS
    return OPTIMIZERS[name].steps


def automatic_rate(name: str, distance: float) -> float:
    """The rate (spreads per step) for a start whose error is `distance`^2 of the empty prompt's.

    A start that is nearly right has a short way to go, on which full steps would first of all lose it. Adam and its
    kin take steps as long as the rate; those of gradient descent grow as the loss, which is 1 at the start, gets
    steeper with nearness; and some find their own.
    """
    row = OPTIMIZERS[name]
    return float(row.rate * min(distance, 1.0) ** row.power)


def lacking(name: str) -> list[str]:
    """The problem, as one line, of an optimizer whose optional package is not installed; empty where it is."""
    row = OPTIMIZERS[name]
    if row.module.startswith("torch.") or importlib.util.find_spec(row.module):
        return []
    return [f"optimizer={name!r} needs the package {row.package}: pip install {row.package}, or choose Adam"]


def make_optimizer(name: str, parameters: Iterable[Tensor], rate: float) -> Optimizer:
    """The optimizer of that name, at that rate. Raises what importing raises where its package is `lacking`."""
    row = OPTIMIZERS[name]
    kind = getattr(importlib.import_module(row.module), name)
    return typing.cast("Optimizer", kind(list(parameters), lr=rate, **row.options))


SCHEDULERS: dict[str, Callable[[Any, Optimizer, int], LRScheduler | None]] = {
    "constant": lambda s, o, n: None,
    "linear": lambda s, o, n: s.LinearLR(o, 1.0, 0.01, n),
    "cosine": lambda s, o, n: s.CosineAnnealingLR(o, n),
    "one-cycle": lambda s, o, n: s.OneCycleLR(o, _rate(o), total_steps=n + 1, cycle_momentum=False),
}
"""name -> (torch.optim.lr_scheduler, optimizer, learning steps) -> scheduler; all arguments follow the steps"""
REMOVED_SCHEDULERS = ("cosine with restarts", "cyclic", "polynomial", "exponential", "multi-step", "plateau")
"""Of earlier versions, which older files may name: none was ever better than a constant rate."""


def _rate(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def make_scheduler(name: str, optimizer: Optimizer, learning_steps: int) -> LRScheduler | None:
    """The rate scheduler of that name over that many steps, to be advanced after each; None for a constant rate."""
    from torch.optim import lr_scheduler

    return SCHEDULERS[name](lr_scheduler, optimizer, learning_steps)


LOSSES: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "MSE": lambda f, a, b: f.mse_loss(a, b),
    "L1": lambda f, a, b: f.l1_loss(a, b),
    "Huber": lambda f, a, b: f.huber_loss(a, b),
    "SmoothL1": lambda f, a, b: f.smooth_l1_loss(a, b, beta=0.5),
    "cosine": lambda f, a, b: 1 - f.cosine_similarity(a.flatten(1), b.flatten(1)).mean(),
}
"""name -> (torch.nn.functional, prediction (B, ...), target (B, ...)) -> scalar"""


def make_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of that name between two real tensors (B, ...) of one shape."""
    import torch.nn.functional

    row = LOSSES[name]
    return lambda prediction, target: row(torch.nn.functional, prediction, target)
