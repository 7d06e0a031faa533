"""The run of an optimizer over an objective."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.errors import failures
from embedding_estimate.errors.failures import FAILED, NO_MEMORY
from embedding_estimate.errors.out_of_memory import ran_out
from embedding_estimate.model.host import Vectors
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.objectives import Objective
from embedding_estimate.optimizers import FULL, automatic_rate, make_optimizer, make_scheduler
from embedding_estimate.progress import OnProgress, Progress, Stopped, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.teacher import Teacher
from embedding_estimate.training.averaging import AVERAGED, Average
from embedding_estimate.training.preconditioning import preconditioned

logger = logging.getLogger(__name__)

READ_EVERY = 0.25  # seconds between two looks at the loss, each of which makes the device wait
GAIN = 1e-3  # relative fall of the held-out error that counts as progress for the early stop
FALLBACK = "Adam"
OnPreview = Callable[[Teacher, Vectors, int], None]  # whose vectors they are, the vectors, the step
OnSnapshot = Callable[["Training", Teacher, int], None]  # the training so far, whose vectors it trains, the step


@dataclass(frozen=True)
class Job:
    """Settings, and who listens."""

    settings: Settings
    on_progress: OnProgress
    on_snapshot: OnSnapshot
    stop: StopToken
    on_preview: OnPreview = lambda teacher, vectors, step: None
    learning_steps: int = 0  # of all parts; the settings' own where it is 0


@dataclass
class Training:
    """What has been reached, and what happened. Several parts may train one after the other."""

    best: dict[str, Tensor]  # (N, width) by encoder
    best_error: float = 0.0  # on the select set
    saved: dict[str, Tensor] = field(default_factory=dict)
    """A copy of `best` on the CPU from the first check on: after an error of the device nothing can be read from it."""
    step: int = 0  # over all parts
    seconds: float = 0.0
    stopped: str = "done"  # or "early stop", "interrupted", "diverged", "exact", `NO_MEMORY`, `FAILED`
    losses: list[float] = field(default_factory=list)  # one per step, up to the last check
    checks: list[tuple[int, float]] = field(default_factory=list)  # (step, explained on the select set)
    stretches: list[tuple[int, str]] = field(default_factory=list)  # (steps before it, its name); see `Progress`
    notes: list[str] = field(default_factory=list)

    def keep(self, vectors: dict[str, Tensor], error: float) -> None:
        """Takes vectors (N, width) by encoder for the best so far."""
        self.best, self.best_error = vectors, error
        self.saved = _on_cpu(vectors)

    def continued(self) -> Training:
        """Another training that goes on from here."""
        return replace(
            self, losses=[*self.losses], checks=[*self.checks], stretches=[*self.stretches], notes=[*self.notes]
        )

    def begin(self, stretch: str) -> None:
        """Notes that what follows is measured anew, unless it goes on with the same."""
        if not self.stretches or self.stretches[-1][1] != stretch:
            self.stretches.append((self.step, stretch))


def train(training: Training, objective: Objective, space: VectorSpace, job: Job) -> None:
    """Optimises the vectors from the best so far and keeps the best by their error on the select set, not the last.

    Where the loss leaves the finite numbers it is tried once more at half the rate, from the best so far; where a
    line search finds no lower point, `FALLBACK` goes on.
    """
    started = time.perf_counter()
    training.best_error = objective.held_out_start
    training.begin(job.settings.part)
    training.notes += [note for note in objective.notes if note not in training.notes]
    last_step = training.step + job.settings.learning_steps
    optimizer = job.settings.optimizer_used

    def rate_of(name: str) -> float:
        return automatic_rate(name, math.sqrt(training.best_error / objective.held_out_empty))

    run = _Run(training, objective, space, job, last_step)
    _finite(run, optimizer, job.settings.rate or rate_of(optimizer))
    if training.stopped == "stuck" and training.step == last_step:
        training.stopped = "done"
    elif training.stopped == "stuck":
        training.notes.append(f"{optimizer} found no lower point at step {training.step}: {FALLBACK} went on")
        _finite(run, FALLBACK, rate_of(FALLBACK))
    training.seconds += time.perf_counter() - started


def _finite(run: _Run, name: str, rate: float) -> None:
    """`_within_memory`; once more with half the rate where the loss leaves the finite numbers."""
    training = run.training
    for attempt in (rate, rate / 2):
        training.stopped = _within_memory(run, name, attempt)
        if training.stopped != "diverged":
            break
        training.notes.append(
            f"rate={attempt:g}: the loss was not finite at step {training.step}; the best vectors before were kept"
        )
        if training.step == run.last_step:
            break


def _within_memory(run: _Run, name: str, rate: float) -> str:
    """`descend`; once memory runs out with less of it, from the best so far and the step of the last check; the best is
    kept where it runs out again, and after any other error.

    Raises what the model raised where there is nothing to keep.
    """
    training, model, sparing = run.training, run.objective.teacher.model, run.job.settings.checkpointing
    while True:
        try:
            with model.checkpointed() if sparing else nullcontext():
                return run.descend(name, rate, sparing)
        except Stopped:
            raise
        except Exception as error:
            if not ran_out(error):
                return _failed(run, error)
            released = sparing and model.release(for_good=True)
            if sparing and not (released or run.something_to_keep):
                raise
        ran_out_at = f"out of memory at step {run.gone_back()}: "
        if not sparing:
            sparing = True
            training.notes.append(ran_out_at + "went on with less of it, as Save memory does")
        elif released:
            training.notes.append(ran_out_at + "went on without what the host can do without")
        else:
            training.notes.append(ran_out_at + run.kept())
            return NO_MEMORY


def _failed(run: _Run, error: Exception) -> str:
    """Keeps the best vectors after an error that nobody foresaw. Raises it where there are none yet."""
    if not run.something_to_keep:
        raise error
    step = run.gone_back()
    reason = failures.logged(error, logger, f"step {step} of the training")
    run.training.notes.append(f"the model failed at step {step}: {reason}; {run.kept()}")
    return FAILED


@dataclass
class _Run:
    """Runs of optimizers, one after the other, up to a step."""

    training: Training
    objective: Objective
    space: VectorSpace
    job: Job
    last_step: int
    unread: list[Tensor] = field(default_factory=list)  # losses since the last check: to read one the device waits
    unjudged: tuple[int, dict[str, Tensor]] | None = None
    """Before the first check: the step when the loss was last looked at, and its vectors (N, width) on the CPU."""

    def descend(self, name: str, rate: float, sparing: bool) -> str:
        """One run of the optimizer from the best vectors so far; returns why it ended."""
        training, objective, settings = self.training, self.objective, self.job.settings
        generator = torch.Generator().manual_seed(settings.seed)
        full = name in FULL
        fixed = objective.fixed(generator, sparing=sparing) if full else []
        draws = itertools.cycle(fixed) if full else iter(lambda: objective.draw(generator), None)
        # LBFGS asks for a hundred single numbers a step, and a GPU would make it wait for each
        device = torch.device("cpu") if full else self.space.device
        space = preconditioned(self.space, objective, training.best, draws, generator, device)
        leaves = space.leaves(training.best, device)
        optimizer = make_optimizer(name, leaves.values(), rate)
        advance = make_scheduler(settings.scheduler, optimizer, max(1, self.last_step - training.step))
        evaluate = _Evaluation(objective, space, leaves, fixed or [next(draws)], again=not full)
        average = Average(leaves, 0.0 if full else AVERAGED)
        stale = 0
        read = -math.inf

        while training.step < self.last_step:
            training.step += 1
            before = [leaf.detach().clone() for leaf in leaves.values()] if full else []
            loss: Any = optimizer.step(evaluate)
            self.unread.append(loss)
            advance(loss)
            average.update()
            if not full:
                evaluate.drawn = [next(draws)]

            stopped = self.job.stop.stopped
            stuck = full and all(map(torch.equal, before, leaves.values()))
            last = stopped or stuck or training.step == self.last_step
            regular = last or training.step % objective.check_every == 0
            snapshot = _due(training.step, settings.save_every)
            preview = _due(training.step, settings.preview_every) and not stopped
            if regular or snapshot or preview:
                vectors = _detached(space.vectors(average.leaves))
                if not all(bool(value.isfinite().all()) for value in vectors.values()):
                    return self._diverged()
            if regular or snapshot:
                error = objective.held_out(vectors)
                if not math.isfinite(error):
                    return self._diverged()
                if regular:
                    stale = 0 if error < (1 - GAIN) * training.best_error else stale + 1
                self._check(vectors, error)
                if settings.early_stop and stale >= settings.early_stop:
                    return "early stop"
            if snapshot:
                self.job.on_snapshot(training, objective.teacher, training.step)
            if preview:
                self.job.on_preview(objective.teacher, vectors, training.step)
            if last or time.monotonic() - read > READ_EVERY:
                read, value = time.monotonic(), float(loss)
                if not math.isfinite(value):
                    return self._diverged()
                if not training.checks:
                    self.unjudged = training.step, _on_cpu(space.vectors(average.leaves))
                explained = 1 - training.best_error / objective.held_out_empty
                total = max(self.job.learning_steps, self.last_step)
                _, stretch = training.stretches[-1]
                self.job.on_progress(Progress("train", training.step, total, value, explained, stretch))
            if stopped or stuck:
                return "interrupted" if stopped else "stuck"
        return "done"

    def _check(self, vectors: dict[str, Tensor], error: float) -> None:
        """Keeps vectors that are better than the best so far, and what the losses were by now."""
        training = self.training
        if error < training.best_error:
            training.keep(vectors, error)
        elif not training.saved:
            training.keep(training.best, training.best_error)
        training.checks.append((training.step, 1 - error / self.objective.held_out_empty))
        self._read_losses()
        logger.debug("step %d: held-out error %.4g, the best %.4g", training.step, error, training.best_error)

    def _diverged(self) -> str:
        self._read_losses()
        return "diverged"

    def _read_losses(self) -> None:
        if self.unread:
            self.training.losses += torch.stack(self.unread).cpu().tolist()
            self.unread.clear()

    @property
    def something_to_keep(self) -> bool:
        return bool(self.training.checks) or self.unjudged is not None

    def kept(self) -> str:
        """What is kept where it ends early: the best vectors or, where none were judged yet, the last ones known."""
        if self.training.checks or self.unjudged is None:
            return "the best vectors before were kept"
        self.training.step, self.training.saved = self.unjudged
        self.training.best = self.training.saved
        return f"the vectors of step {self.training.step} were kept, before any were judged"

    def gone_back(self) -> int:
        """Goes back to the last check, since which nothing was kept; returns the step that was being made."""
        training = self.training
        step = min(len(training.losses) + len(self.unread) + 1, self.last_step)
        training.step = training.checks[-1][0] if training.checks else 0
        del training.losses[training.step :]
        self.unread.clear()
        return step


def _due(step: int, every: int) -> bool:
    """Whether a step is one of every n-th; 0 for none."""
    return every > 0 and step % every == 0


@dataclass
class _Evaluation:
    """Loss and gradient, as an optimizer asks for them."""

    objective: Objective
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


def _on_cpu(vectors: Vectors) -> dict[str, Tensor]:
    return {key: value.detach().float().cpu() for key, value in vectors.items()}


def _detached(vectors: Vectors) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in vectors.items()}
