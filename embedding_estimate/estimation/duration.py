"""How long an estimate is expected to take, on the machine that will run it.

Passes of the U-Net are counted beforehand, and a few are timed. What else takes time is done as it will be, once, on a
model without its U-Net: `Rehearsal` reads all prompts, and takes one learning step of many.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor

from embedding_estimate.estimation.passes import Range, Rehearsal
from embedding_estimate.model.host import BorrowedModel, Conditioning
from embedding_estimate.model.meter import Passes
from embedding_estimate.objectives.objective import Objective
from embedding_estimate.optimizers import FULL
from embedding_estimate.teaching import batches, probing
from embedding_estimate.teaching.plan import Phase
from embedding_estimate.teaching.teacher import Teacher
from embedding_estimate.training import few_words, name_weight
from embedding_estimate.training.preconditioning import SAMPLES

Result = TypeVar("Result")

EVALUATIONS = 1.05  # of the loss in a step of LBFGS: most line searches end where they begin
LONG = 0.5  # seconds, after which no pass is timed again
TIMES = 3  # that a shorter one is timed; the first does not count


@dataclass(frozen=True)
class Duration:
    """Seconds of each stage."""

    prepare: float = 0.0
    train: float = 0.0
    measure: float = 0.0

    @property
    def total(self) -> float:
        """Of the whole estimate."""
        return self.prepare + self.train + self.measure

    def __add__(self, more: Duration) -> Duration:
        return Duration(self.prepare + more.prepare, self.train + more.train, self.measure + more.measure)


@dataclass(frozen=True)
class Speed:
    """Seconds that one latent takes in the U-Net."""

    forward: float
    backward: float  # on top of those, where it goes back as well

    def seconds(self, passes: Passes) -> float:
        """Of so many passes."""
        return passes.forwards * self.forward + passes.backwards * self.backward

    @classmethod
    def of(cls, model: BorrowedModel, teacher: Teacher, batch: int) -> Speed:
        """Timed with latents of the task's size on the model, which has its U-Net; `teacher` may be without.

        Several are passed together, as they will be, unless a single one takes long: then they take turns anyway.
        """
        task, scale = teacher.task, model.info.latent_scale
        height, width = task.height // scale, task.width // scale
        kept = probing.together(model, height * width, batch, checkpointed=False)
        together = min(batches.USUAL, kept.latents)
        read = teacher.encode_vectors(model.token_vectors("x"))
        learned = Conditioning(read.context.detach().requires_grad_(), read.vector)

        def passed(latents: int) -> Tensor:
            x = torch.zeros(latents, model.info.latent_channels, height, width, device=model.device)
            return model.denoise(x, torch.ones_like(x[:, 0, 0, 0]), learned)

        @torch.no_grad()
        def through(latents: int) -> None:
            passed(latents)

        def back(latents: int) -> None:
            with torch.enable_grad(), model.checkpointed() if kept.checkpointed else nullcontext():
                passed(latents).square().sum().backward()

        forward = timed(partial(through, 1), model.device)
        if together > 1 and forward < LONG:
            forward = timed(partial(through, together), model.device) / together
        return cls(forward, max(0.0, timed(partial(back, together), model.device) / together - forward))


def clocked(call: Callable[[], Result], device: torch.device) -> tuple[Result, float]:
    """What a call returns, and the seconds until the device has done it."""
    began = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - began


def timed(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a call: the median of a few without the first, or of a long call the first."""
    seconds: list[float] = []
    while len(seconds) < TIMES and sum(seconds) <= LONG:
        seconds.append(clocked(call, device)[1])
    return median(seconds[1:] or seconds)


def training(rehearsal: Rehearsal, objective: Objective[Any], passes: Range, speed: Speed) -> float:
    """Seconds of a training, for an objective that was prepared without the U-Net and a training of these `passes`.

    A search for the weight or the number of words is taken to be short.
    """
    phase = objective.phase
    steps = _steps(phase, len(rehearsal.begun.plans))
    check = timed(lambda: objective.held_out(rehearsal.start), objective.teacher.model.device)
    searched = phase.finds_weight or phase.finds_words or phase.optimizer in FULL
    through_the_unet = speed.seconds(passes.least if searched else passes.most)
    stages = replace(objective, phase=replace(phase, steps=steps)).stages()
    return (
        steps / objective.check_every * check
        + through_the_unet
        + sum(_stage(rehearsal, *stage, speed) for stage in stages)
    )


def _stage(rehearsal: Rehearsal, objective: Objective[Any], steps: int, speed: Speed) -> float:
    """Seconds of a stage's steps, beside those that `passes` account for."""
    leaves = {key: value.detach().clone().requires_grad_() for key, value in rehearsal.start.items()}
    phase = objective.phase
    draws = objective.of_a_step(torch.Generator().manual_seed(phase.seed), sparing=phase.checkpointing)

    def evaluate() -> None:
        objective.loss(leaves, draws[0]).backward()

    evaluations = steps * (len(draws) * EVALUATIONS if phase.optimizer in FULL else 1)
    uncounted = (evaluations - steps) * speed.seconds(rehearsal.asked(evaluate))
    return uncounted + (SAMPLES + evaluations) * timed(evaluate, objective.teacher.model.device)


def _steps(phase: Phase, tries: int) -> int:
    """Learning steps, those of trials included; `tries` are the numbers of words that may be tried."""
    if phase.finds_weight:
        return len(name_weight.GRID) * name_weight.TRIAL_STEPS + phase.steps
    return phase.steps + (few_words.steps_of_a_try(phase.steps) * (tries - 1) if phase.finds_words else 0)
