"""From a prompt to an embedding.

`estimate` reads from top to bottom: borrow the model, run the teacher, choose where to start, train, measure.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from embedding_estimate.checks import advice
from embedding_estimate.errors import Interrupted, failures
from embedding_estimate.estimation.listener import NOBODY, Listener
from embedding_estimate.estimation.opening import opening
from embedding_estimate.estimation.phase import train_phases
from embedding_estimate.estimation.result import embedding_of
from embedding_estimate.estimation.resuming import position
from embedding_estimate.fidelity import protocol, quick
from embedding_estimate.fidelity.protocol import Fidelity, Images
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.model.host import Host, Vectors
from embedding_estimate.model.meter import Meter, StagePasses
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.progress import Progress, Stopped, StopReason, StopToken
from embedding_estimate.settings import ALONE, FULL_WITH_IMAGES, NOTHING, QUICK, QUICK_WITH_IMAGES, Settings
from embedding_estimate.storage import phrases
from embedding_estimate.teaching.batches import without_gradients
from embedding_estimate.teaching.plan import learning_steps
from embedding_estimate.teaching.recall import ONE_JOB, Recall
from embedding_estimate.teaching.teacher import Task, Teacher
from embedding_estimate.training.handlers import Watch
from embedding_estimate.training.state import Training

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """An embedding and all that is known of it."""

    embedding: Embedding
    task: Task  # with the weight or the words that it is typed with
    fidelity: Fidelity | None  # None where the job was interrupted before it was measured, or not to be measured
    steps: int
    stopped: StopReason
    losses: list[float]
    checks: list[tuple[int, float]]
    notes: list[str]
    norm_ratio: float  # longest vector, in median norms of the vocabulary
    seconds_prepare: float
    seconds_train: float
    passes: StagePasses
    stretches: Sequence[tuple[int, str]] = ()  # (steps before it, its name); losses and checks of two do not compare
    words_tried: Sequence[tuple[int, float]] = ()  # (number of words, emphasis explained on the select set)

    @property
    def unet_forwards(self) -> int:
        """Passes through the U-Net of one latent each: preparation, selection and previews, but not the figures."""
        return (self.passes.prepare + self.passes.train).forwards

    @property
    def unet_backwards(self) -> int:
        """Those of `unet_forwards` that were passed back."""
        return (self.passes.prepare + self.passes.train).backwards

    @property
    def typed_weight(self) -> float:
        """What the name is to be typed with."""
        return self.task.typed_weight

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
    recall: Recall | None = None,
    state: Tree | None = None,
) -> Estimate:
    """Makes an embedding that does what `settings.text` does.

    `contexts` are the user's own to measure in, for those of `protocol.measure`. `beside` are names of embeddings that
    the result will lie among and the host does not read. `recall` has what the prompt did in earlier jobs. `state` is
    what `listener.on_state` collected in an estimate of the same settings, which goes on from there. A stop that saves
    returns the best vectors so far, and so does an error of the model once there are any; what is `stopped` then says
    which. Raises `SettingsError` with every problem of the settings, `PromptError` for a prompt that the training part
    cannot match, `Interrupted` for a stop that drops, or before there is anything to keep.
    """
    settings.check()
    stop, recall = stop or StopToken(), Recall(ONE_JOB) if recall is None else recall
    with interruptible(stop), host.borrow(stop.check) as borrowed:
        stop.check()
        recall.begin()
        model = Meter(borrowed)
        started = time.perf_counter()
        with model.interruptible(stop.check):  # a long text takes its time
            begun = opening(settings, model, listener, contexts=contexts, beside=beside, recall=recall)
        at = position(begun, model, state)
        started -= at.seconds
        settings, teacher = begun.settings, at.teacher
        space = VectorSpace.of(model)

        def preview(teacher: Teacher, vectors: Vectors, step: int) -> None:
            with suppress(Stopped), model.interruptible(stop.check):
                listener.on_preview(teacher, vectors, step)

        def snapshot(training: Training, teacher: Teacher, step: int) -> None:
            so_far = replace(training, stopped=StopReason.SNAPSHOT)
            listener.on_snapshot(embedding_of(settings, model, so_far, None, teacher.task), step)

        def offer(collect: Callable[[], Tree]) -> None:
            listener.on_state(lambda: {**collect(), "seconds": time.perf_counter() - started})

        watch = Watch(
            on_progress=listener.on_progress,
            on_snapshot=snapshot,
            on_preview=preview,
            on_state=offer,
            stop=stop,
            save_every=settings.save_every,
            preview_every=settings.preview_every,
            total_steps=learning_steps(settings),
        )
        if begun.exact is None:
            with model.stage("train"):
                training, teacher = train_phases(begun, at, watch, space, model)
        else:
            training = Training(dict(begun.exact), stopped=StopReason.EXACT, notes=[begun.exact_note])
        spent = time.perf_counter() - started

        figures = None
        if not stop.dropped:  # even giving the model back may fail where a device answers no more
            listener.on_trained(embedding_of(settings, model, training, None, teacher.task))
        if settings.measure_used != NOTHING and training.stopped not in (StopReason.INTERRUPTED, StopReason.FAILED):
            with (
                suppress(Stopped),
                _worth_no_loss(training, "not measured"),
                model.interruptible(stop.check),
                model.stage("measure"),
            ):
                figures, images = measured(settings, teacher, training.best, listener, contexts)
                training.notes += advice.of_figures(figures)
            if figures and (images.latents or images.in_context):
                with _worth_no_loss(training, "no pictures"):
                    listener.on_images(model, images)
        return Estimate(
            embedding=embedding_of(settings, model, training, figures, teacher.task),
            task=teacher.task,
            fidelity=figures,
            steps=training.step,
            stopped=training.stopped,
            losses=training.losses,
            checks=training.checks,
            # the host may know more than it did
            notes=list(dict.fromkeys([*begun.notes, *training.notes, *advice.of_prompts(settings, model)])),
            norm_ratio=space.norm_ratio(training.saved or training.best),
            seconds_prepare=spent - training.seconds,
            seconds_train=training.seconds,
            passes=model.passes,
            stretches=training.stretches,
            words_tried=training.words_tried,
        )


def measured(
    settings: Settings, teacher: Teacher, vectors: Vectors, listener: Listener, contexts: Sequence[str]
) -> tuple[Fidelity, Images]:
    """What the settings ask to measure of vectors (N, width) by encoder, among words of `contexts` or the model's."""
    teacher.model.release()
    images = {QUICK_WITH_IMAGES: 1, FULL_WITH_IMAGES: len(protocol.IMAGE_SEEDS)}.get(settings.measure_used, 0)
    measure = partial(protocol.measure, images=images)
    if settings.measure_used in (QUICK, QUICK_WITH_IMAGES):
        measure = partial(quick.measure, images=images, alone=settings.use == ALONE)
    return measure(
        teacher.model,
        teacher.task,
        {key: value.to(teacher.model.device) for key, value in vectors.items()},
        batch=without_gradients(teacher.model, settings.batch),
        contexts=contexts,
        recall=teacher.recall,
        on_progress=lambda done, total: listener.on_progress(Progress("measure", done, total)),
        on_figures=listener.on_figures,
    )


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
