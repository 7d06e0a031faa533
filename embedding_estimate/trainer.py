"""From a prompt to an embedding.

`estimate` reads from top to bottom: borrow the model, run the teacher, choose where to start, train, measure.
"""

from __future__ import annotations

import math
import time
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from embedding_estimate import __version__, fidelity, names
from embedding_estimate.checks import check_against
from embedding_estimate.embedding import Embedding
from embedding_estimate.errors import Interrupted
from embedding_estimate.fidelity import Fidelity, Images
from embedding_estimate.host import BorrowedModel, Host, Vectors
from embedding_estimate.initial import exact_note, exact_vectors, starting_vectors
from embedding_estimate.objectives import Objective, make_objective
from embedding_estimate.optimizers import automatic_rate, make_loss, make_optimizer, make_scheduler
from embedding_estimate.progress import Meter, OnProgress, Progress, Stopped, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teacher import Task, Teacher, Trajectory
from embedding_estimate.vectors import VectorSpace, count

READ_EVERY = 0.25  # seconds between two looks at the loss, each of which makes the device wait
GAIN = 1e-3  # relative fall of the held-out error that counts as progress for the early stop
FROZEN_DRAWS = 8  # what LBFGS keeps: its curvature means something on one function only


@dataclass(frozen=True)
class Job:
    """Settings, and who listens."""

    settings: Settings
    on_progress: OnProgress
    on_snapshot: Callable[[Embedding, int], None]
    stop: StopToken
    on_preview: Callable[[Vectors, int], None] = lambda vectors, step: None


@dataclass
class Training:
    """The run of the optimizer: what it has reached, and what happened."""

    best: dict[str, Tensor]  # (N, width) by encoder
    best_error: float  # on the select set
    step: int = 0
    stopped: str = "done"  # or "early stop", "interrupted", "diverged", "exact"
    losses: list[Tensor] = field(default_factory=list)  # one per step, left on the device
    checks: list[tuple[int, float]] = field(default_factory=list)  # (step, explained on the select set)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Estimate:
    """An embedding and all that is known of it."""

    embedding: Embedding
    fidelity: Fidelity | None  # None where the job was interrupted before it was measured, or not to be measured
    images: Images | None
    steps: int
    stopped: str
    losses: list[float]
    checks: list[tuple[int, float]]
    notes: list[str]
    norm_ratio: float  # longest vector, in median norms of the vocabulary
    seconds_prepare: float
    seconds_train: float
    unet_forwards: int  # samples; preparation, selection and previews included, the final report not
    unet_backwards: int


def estimate(
    settings: Settings,
    host: Host,
    *,
    on_progress: OnProgress = lambda progress: None,
    on_snapshot: Callable[[Embedding, int], None] = lambda embedding, step: None,
    on_preview: Callable[[Teacher, Vectors, int], None] = lambda teacher, vectors, step: None,
    stop: StopToken | None = None,
) -> Estimate:
    """Makes an embedding that does what `settings.text` does.

    `on_snapshot` gets the vectors of every `settings.save_every`-th step, `on_preview` those of every
    `settings.preview_every`-th beside the teacher. A stop that saves returns the best vectors so far. Raises
    `SettingsError` with every problem of the settings, `PromptError` for a prompt that the training part cannot match,
    `Interrupted` for a stop that drops, or that comes before there is anything to keep.
    """
    settings.check()
    stop = stop or StopToken()
    with host.borrow() as borrowed, _interruptible(stop):
        meter = Meter(borrowed)
        model = typing.cast(BorrowedModel, meter)
        check_against(settings, model)
        teacher = Teacher(model, Task.of(settings, model))
        space = VectorSpace.of(model)

        def preview(vectors: Vectors, step: int) -> None:
            with suppress(Stopped), meter.interruptible(stop):
                on_preview(teacher, vectors, step)

        job = Job(settings, on_progress, on_snapshot, stop, preview)
        started = time.perf_counter()
        exact = exact_vectors(teacher, Trajectory.of(settings), settings.tokens)
        if exact is None:
            start = starting_vectors(settings, model)
            objective = make_objective(settings, teacher, make_loss(settings.loss))
            with meter.interruptible(stop):
                _prepare(objective, start, teacher, job)
            prepared = time.perf_counter()
            training = train(objective, space, start, job)
            training.notes += objective.notes
        else:
            prepared = time.perf_counter()
            training = Training(exact, 0.0, stopped="exact", notes=[exact_note(settings.tokens, count(exact))])
        trained = time.perf_counter()
        forwards, backwards = meter.forwards, meter.backwards

        figures, pictured = None, None
        if settings.measure != "Nothing" and training.stopped != "interrupted":
            with suppress(Stopped), _worth_no_loss(training), meter.interruptible(stop):
                figures, pictured = _measure(teacher, training, job)
        return Estimate(
            embedding=_embedding(settings, model, training, figures),
            fidelity=figures,
            images=pictured,
            steps=training.step,
            stopped=training.stopped,
            losses=[float(loss) for loss in training.losses],
            checks=training.checks,
            notes=_notes(settings, model) + training.notes,
            norm_ratio=space.norm_ratio(training.best),
            seconds_prepare=prepared - started,
            seconds_train=trained - prepared,
            unet_forwards=forwards,
            unet_backwards=backwards,
        )


def train(objective: Objective, space: VectorSpace, start: Vectors, job: Job) -> Training:
    """Optimises the vectors and keeps the best by their error on the select set, not the last.

    Where the loss leaves the finite numbers it is tried once more at half the rate, from the best so far.
    """
    training = Training(dict(start), objective.held_out_start)
    distance = math.sqrt(training.best_error / objective.held_out_empty)
    rate = job.settings.rate or automatic_rate(job.settings.optimizer, distance)
    for attempt in (rate, rate / 2):
        training.stopped = _descend(training, objective, space, attempt, job)
        if training.stopped != "diverged":
            break
        training.notes.append(
            f"rate={attempt:g}: the loss was not finite at step {training.step}; the best vectors before were kept"
        )
    return training


def _descend(training: Training, objective: Objective, space: VectorSpace, rate: float, job: Job) -> str:
    """One run of the optimizer from the best vectors so far; returns why it ended."""
    settings = job.settings
    generator = torch.Generator().manual_seed(settings.seed)
    leaves = space.leaves(training.best)
    optimizer = make_optimizer(settings.optimizer, leaves.values(), rate)
    advance = make_scheduler(settings.scheduler, optimizer, settings.learning_steps)
    frozen = settings.optimizer == "LBFGS"
    drawn = [objective.draw(generator) for _ in range(FROZEN_DRAWS if frozen else 1)]
    stale = 0
    read = time.monotonic()

    def closure() -> Any:  # torch declares a float, and a tensor spares the device a wait
        optimizer.zero_grad()
        total = torch.zeros((), device=space.device)
        for draw in drawn:
            loss = objective.loss(space.vectors(leaves), draw) / len(drawn)
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    while training.step < settings.learning_steps:
        training.step += 1
        loss: Any = optimizer.step(closure)
        space.bound_(leaves)
        training.losses.append(loss)
        advance(loss)
        if not frozen:
            drawn = [objective.draw(generator)]

        stopped = job.stop.stopped
        last = stopped or training.step == settings.learning_steps
        if last or training.step % objective.check_every == 0:
            vectors = _detached(space.vectors(leaves))
            error = objective.held_out(vectors)
            if not math.isfinite(error):
                return "diverged"
            stale = 0 if error < (1 - GAIN) * training.best_error else stale + 1
            if error < training.best_error:
                training.best, training.best_error = vectors, error
            training.checks.append((training.step, 1 - error / objective.held_out_empty))
            if settings.early_stop and stale >= settings.early_stop:
                return "early stop"
        if settings.save_every and training.step % settings.save_every == 0:
            job.on_snapshot(Embedding(settings.name, _detached(space.vectors(leaves))), training.step)
        if settings.preview_every and training.step % settings.preview_every == 0 and not stopped:
            job.on_preview(_detached(space.vectors(leaves)), training.step)
        if last or time.monotonic() - read > READ_EVERY:
            read, value = time.monotonic(), float(loss)
            if not math.isfinite(value):
                return "diverged"
            explained = 1 - training.best_error / objective.held_out_empty
            job.on_progress(Progress("train", training.step, settings.learning_steps, value, explained))
        if stopped:
            return "interrupted"
    return "done"


def _prepare(objective: Objective, start: Vectors, teacher: Teacher, job: Job) -> None:
    done, total = 0, objective.states_to_record

    def tell(states: int) -> None:
        nonlocal done
        done = min(done + states, total)
        job.on_progress(Progress("prepare", done, total))

    teacher.on_record = tell
    objective.prepare(start)
    if total:
        tell(total)  # second-order samplers ask a little less often than schedules count


def _measure(teacher: Teacher, training: Training, job: Job) -> tuple[Fidelity, Images]:
    return fidelity.measure(
        teacher.model,
        teacher.task,
        training.best,
        batch=2 * job.settings.batch,  # no gradient is kept, so twice as many fit
        images=job.settings.measure == "Figures and images",
        on_progress=lambda done, total: job.on_progress(Progress("measure", done, total)),
    )


def _embedding(settings: Settings, model: BorrowedModel, training: Training, figures: Fidelity | None) -> Embedding:
    """The vectors with their provenance: enough to make them again, nothing of the machine."""
    told = settings.to_dict()
    if settings.private:
        for secret in ("text", "other_prompt", "initial_prompt", "templates"):
            del told[secret]
    provenance: dict[str, Any] = {
        "version": __version__,
        "settings": told,
        "model": {"name": model.info.name, "hash": model.info.hash, "family": model.info.family},
        "clip_skip": model.info.clip_skip,
        "emphasis": model.info.emphasis,
        "steps": training.step,
        "stopped": training.stopped,
        "fidelity": figures.to_dict() if figures else None,
    }
    return Embedding(settings.name, {k: v.float().cpu() for k, v in training.best.items()}, provenance)


def _notes(settings: Settings, model: BorrowedModel) -> list[str]:
    """What a user of the embedding has to know, whatever became of the training."""
    found = names.warnings(settings.name, model.token_ids, model.embedding_names()) + model.notes(settings.text)
    if model.info.clip_skip != 1:
        found.append(f"made for clip skip {model.info.clip_skip}: use it with the same")
    if model.info.emphasis != "Original":
        found.append(f"made for the emphasis mode {model.info.emphasis}: use it with the same")
    return found


def _detached(vectors: Vectors) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in vectors.items()}


@contextmanager
def _worth_no_loss(training: Training) -> Iterator[None]:
    """Vectors that are trained are kept even where there is no memory to measure them."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch's own for out of memory is a RuntimeError
        training.notes.append(f"not measured, the model failed: {str(error).splitlines()[0]}; try compare")


@contextmanager
def _interruptible(stop: StopToken) -> Iterator[None]:
    """A stop where nothing can be kept, or that drops what there is, ends in `Interrupted`."""
    try:
        yield
    except Stopped:
        raise Interrupted("interrupted before there was anything to save") from None
    if stop.dropped:
        raise Interrupted("interrupted; the result was dropped")
