"""From a prompt to an embedding.

`estimate` reads from top to bottom: borrow the model, run the teacher, choose where to start, train, measure.
"""

from __future__ import annotations

import itertools
import logging
import time
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from embedding_estimate.checks import advice
from embedding_estimate.checks.model_checks import check_against, check_contexts
from embedding_estimate.errors import Interrupted, failures
from embedding_estimate.estimation.listener import NOBODY, Listener
from embedding_estimate.estimation.phase import train_phase
from embedding_estimate.estimation.result import embedding_of
from embedding_estimate.fidelity import protocol
from embedding_estimate.fidelity.protocol import Fidelity, Images
from embedding_estimate.files import names
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.model.host import BorrowedModel, Host, Vectors
from embedding_estimate.model.vectors import VectorSpace, count
from embedding_estimate.objectives.prompts import check_text
from embedding_estimate.progress import Meter, Progress, Stopped, StopReason, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage import phrases
from embedding_estimate.teaching import words
from embedding_estimate.teaching.plan import learning_steps, phases
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory
from embedding_estimate.training.handlers import Watch
from embedding_estimate.training.start import exact_note, exact_vectors, number_of_vectors, starting_vectors
from embedding_estimate.training.state import Training

logger = logging.getLogger(__name__)

IMAGES = {"Figures and images": len(protocol.IMAGE_SEEDS), "Figures and one image": 1}  # seeds, by `settings.measure`


@dataclass(frozen=True)
class Estimate:
    """An embedding and all that is known of it."""

    embedding: Embedding
    typed_weight: float  # that the name is to be typed with
    fidelity: Fidelity | None  # None where the job was interrupted before it was measured, or not to be measured
    steps: int
    stopped: StopReason
    losses: list[float]
    checks: list[tuple[int, float]]
    notes: list[str]
    norm_ratio: float  # longest vector, in median norms of the vocabulary
    seconds_prepare: float
    seconds_train: float
    unet_forwards: int  # samples; preparation, selection and previews included, the final report not
    unet_backwards: int
    stretches: Sequence[tuple[int, str]] = ()  # (steps before it, its name); losses and checks of two do not compare
    words_tried: Sequence[tuple[int, float]] = ()  # (number of words, emphasis explained on the select set)

    @property
    def phrase(self) -> str:
        """What is to be typed."""
        return phrases.recorded_phrase(self.embedding, self.typed_weight)


def estimate(
    settings: Settings,
    host: Host,
    listener: Listener = NOBODY,
    *,
    contexts: Sequence[str] = (),
    beside: Sequence[str] = (),
    stop: StopToken | None = None,
) -> Estimate:
    """Makes an embedding that does what `settings.text` does.

    `contexts` are the user's own to measure in, for those of `protocol.measure`. `beside` are names of embeddings that
    the result will lie among and the host does not read. A stop that saves returns the best vectors so far, and so does
    an error of the model once there are any; what is `stopped` then says which. Raises `SettingsError` with every
    problem of the settings, `PromptError` for a prompt that the training part cannot match, `Interrupted` for a stop
    that drops, or before there is anything to keep.
    """
    settings.check()
    stop = stop or StopToken()
    with interruptible(stop), host.borrow(stop.check) as borrowed:
        stop.check()
        meter = Meter(borrowed)
        model = typing.cast(BorrowedModel, meter)
        with meter.interruptible(stop):
            settings = check_against(settings, model)
            check_contexts(contexts, settings.negative, model)
            plans = words.plans(settings, model)
            planned = plans[0] if plans else ()
            tokens = sum(word.tokens for word in planned) or number_of_vectors(settings, model)
            word_notes = words.notes(settings, plans)
        settings = replace(settings, tokens=tokens)
        possible = [names.of_words(settings.name, len(plan)) for plan in plans]
        if plans:
            listener.on_names(list(dict.fromkeys(itertools.chain(*possible))))
        teacher = Teacher(model, Task.of(settings, model, planned))
        space = VectorSpace.of(model)

        def preview(teacher: Teacher, vectors: Vectors, step: int) -> None:
            with suppress(Stopped), meter.interruptible(stop):
                listener.on_preview(teacher, vectors, step)

        def snapshot(training: Training, teacher: Teacher, step: int) -> None:
            so_far = replace(training, stopped=StopReason.SNAPSHOT)
            listener.on_snapshot(embedding_of(settings, model, so_far, None, teacher.task), step)

        watch = Watch(
            on_progress=listener.on_progress,
            on_snapshot=snapshot,
            on_preview=preview,
            stop=stop,
            save_every=settings.save_every,
            preview_every=settings.preview_every,
            total_steps=learning_steps(settings),
        )
        started = time.perf_counter()
        trajectory = Trajectory.of(settings)
        with meter.interruptible(stop):  # a long text takes its time
            check_text(teacher, trajectory)
            notes = word_notes + _notes(possible or [[settings.name]], settings, teacher, beside)
            notes += advice.of_contexts(contexts, settings, teacher)
            listener.on_notes(notes)
            start = starting_vectors(settings, model, planned)
            exact = exact_vectors(teacher, trajectory, tokens, start if planned else None)
        if exact is None:
            training = Training(start)
            *before, last = phases(settings)
            for phase in (*before, last):
                training, teacher = train_phase(
                    training, plans, start, phase, watch, teacher, space, meter, last=phase is last
                )
        else:
            training = Training(exact, stopped=StopReason.EXACT, notes=[exact_note(tokens, count(exact))])
        spent = time.perf_counter() - started
        forwards, backwards = meter.forwards, meter.backwards

        figures = None
        if not stop.dropped:  # even giving the model back may fail where a device answers no more
            listener.on_trained(embedding_of(settings, model, training, None, teacher.task))
        if settings.measure != "Nothing" and training.stopped not in (StopReason.INTERRUPTED, StopReason.FAILED):
            with suppress(Stopped), _worth_no_loss(training, "not measured"), meter.interruptible(stop):
                figures, images = _measure(settings, teacher, training, listener, contexts)
                training.notes += advice.of_figures(figures)
            if figures and images.latents:
                with _worth_no_loss(training, "no pictures"):
                    listener.on_images(model, images)
        return Estimate(
            embedding=embedding_of(settings, model, training, figures, teacher.task),
            typed_weight=teacher.task.typed_weight,
            fidelity=figures,
            steps=training.step,
            stopped=training.stopped,
            losses=training.losses,
            checks=training.checks,
            # the host may know more than it did
            notes=list(dict.fromkeys([*notes, *training.notes, *advice.of_prompts(settings, model)])),
            norm_ratio=space.norm_ratio(training.saved or training.best),
            seconds_prepare=spent - training.seconds,
            seconds_train=training.seconds,
            unet_forwards=forwards,
            unet_backwards=backwards,
            stretches=training.stretches,
            words_tried=training.words_tried,
        )


def _measure(
    settings: Settings, teacher: Teacher, training: Training, listener: Listener, contexts: Sequence[str]
) -> tuple[Fidelity, Images]:
    teacher.model.release()
    return protocol.measure(
        teacher.model,
        teacher.task,
        {key: value.to(teacher.model.device) for key, value in training.best.items()},
        batch=2 * settings.batch,  # no gradient is kept, so twice as many fit
        images=IMAGES.get(settings.measure, 0),
        contexts=contexts,
        on_progress=lambda done, total: listener.on_progress(Progress("measure", done, total)),
        on_figures=listener.on_figures,
    )


def _notes(possible: Sequence[Sequence[str]], settings: Settings, teacher: Teacher, beside: Sequence[str]) -> list[str]:
    """What the user should know, whatever becomes of the training. `possible` are the names that there may be."""
    model = teacher.model
    others = [*model.embedding_names(), *beside]
    found = [
        line
        for mine in possible
        for name in mine
        for line in names.warnings(name, model.token_ids, dict.fromkeys([*others, *mine]))
    ]
    found += advice.of_job(settings, teacher)
    if model.info.clip_skip != 1:
        found.append(f"made for clip skip {model.info.clip_skip}: use it with the same")
    if model.info.emphasis != "Original":
        found.append(f"made for the emphasis mode {model.info.emphasis}: use it with the same")
    return found


@contextmanager
def _worth_no_loss(training: Training, without: str) -> Iterator[None]:
    """Vectors that are trained are kept even where there is no memory for more, or where an error ends it."""
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        reason = failures.logged(error, logger, "what follows upon the training")
        training.notes.append(f"{without}, the model failed: {reason}; try compare")


@contextmanager
def interruptible(stop: StopToken) -> Iterator[None]:
    """A stop where nothing can be kept, or that drops what there is, ends in `Interrupted`."""
    try:
        yield
    except Stopped:
        raise Interrupted("interrupted before there was anything to save") from None
    if stop.dropped:
        raise Interrupted("interrupted; the result was dropped")
