"""Quick figures: those of the protocol, from a few of its states.

They take a tenth of the protocol's passes, so they are there while one still looks, each with its standard error.
In context they take the protocol's own trajectories, of four contexts only and no further than to their sixth step.
Nothing was trained in these contexts or chosen by them. docs/fidelity.md says how far off quick figures are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from embedding_estimate.fidelity import among_words
from embedding_estimate.fidelity.among_words import Context, InContexts, bare_words, by_seed, standard_error
from embedding_estimate.fidelity.protocol import (
    IMAGE_SEEDS,
    SEEDS,
    Fidelity,
    Images,
    OnFigures,
    PassBar,
    figures_alone,
)
from embedding_estimate.model.host import BorrowedModel, Vectors
from embedding_estimate.model.meter import Meter
from embedding_estimate.teaching.recall import Recall
from embedding_estimate.teaching.sides import Side, errors
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

QUICK = "quick v2"
ALONE = SEEDS[:2]
ALONE_AT = (1, 4, 7)  # evaluations
CONTEXTS = 4  # of the report's
CONTEXTS_AT = (2, 5)
SURE = 0.25  # the standard error up to which a figure of the weights is one; it is a ratio of two small errors
PICTURES = Trajectory("DPM++ 2M", "Karras", 10, 7.0)  # or by Euler, where a host has no other


def measure(
    model: BorrowedModel,
    task: Task,
    vectors: Vectors,
    *,
    batch: int,
    images: int = 0,
    alone: bool = False,
    contexts: Sequence[str] = (),
    recall: Recall | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_figures: OnFigures = lambda figures: None,
) -> tuple[Fidelity, Images]:
    """Measures vectors against the task's prompt, quickly.

    Args:
        images: number of seeds to make images of.
        alone: whether the embedding stands alone in the images, not in one of the contexts.

    The other arguments are those of `protocol.measure`. All `contexts` of the user's are measured in.
    """
    bar = PassBar(on_progress)
    size = model.info.default_size
    teacher = Teacher(Meter(model, bar.tick), replace(task, width=size, height=size), recall=recall)
    seeds = dict(zip(contexts or teacher.contexts.report, itertools.cycle(SEEDS), strict=False))  # as in the protocol
    templates = contexts or _spread(teacher.contexts.report, CONTEXTS)
    shown = among_words.pictured_context(teacher, templates) if images and not alone else ""
    drawn = (
        PICTURES if PICTURES.sampler in model.samplers else replace(PICTURES, sampler=among_words.TRAJECTORY.sampler)
    )
    pictured = _pictured(teacher, vectors, shown or "{}", drawn) if images else {}
    bar.begin(_work(teacher, len(templates)) + 2 * drawn.steps * images * len(pictured))
    by_row = _alone(teacher, vectors, batch)
    err = {name: float(value.mean()) for name, value in by_row.items()}
    explained, emphasis = figures_alone(err)
    of_emphasis = standard_error(by_row["embedding"], by_row["without weights"]) if emphasis is not None else None
    emphasis = sure(emphasis, of_emphasis)
    on_figures({"explained": explained, "emphasis_explained": emphasis})
    measured = []
    for template in templates:
        here = Context.of(teacher, template, among_words.TRAJECTORY, seeds[template], batch, at=CONTEXTS_AT)
        measured.append((here, here.error(teacher, vectors, batch)))
    inside = InContexts.of(measured)
    emphasis_inside = sure(inside.emphasis, inside.standard_errors["emphasis_in_context"])
    on_figures({"explained_in_context": inside.explained, "emphasis_in_context": emphasis_inside})
    latents = {name: teacher.run(side, drawn, IMAGE_SEEDS[:images], batch) for name, side in pictured.items()}
    bar.end()
    figures = Fidelity(
        protocol=QUICK,
        explained=explained,
        emphasis_explained=emphasis,
        explained_without_weights=1 - among_words.ratio(err["without weights"], err["empty"]),
        explained_truncated=None,
        explained_in_context=inside.explained,
        explained_in_context_without_weights=inside.without_weights,
        emphasis_in_context=emphasis_inside,
        worst_context=inside.worst,
        contexts=inside.rows,
        standard_errors={
            "explained": standard_error(by_row["embedding"], by_row["empty"]),
            "emphasis_explained": of_emphasis,
            **inside.standard_errors,
        },
        image_distance=None,
        image_distance_without_weights=None,
        errors=err,
        typed_weight=task.typed_weight,
        pictured_context=shown,
        own_contexts=bool(contexts),
    )
    return figures, Images(*(({}, latents) if shown else (latents, {})))


def sure(figure: float | None, error: float | None) -> float | None:
    """The figure, or None if its standard error says that these states do not tell. A single sample has no error."""
    return figure if error is None or error <= SURE else None


def _work(teacher: Teacher, contexts: int) -> int:
    """U-Net passes of one latent for the figures: both sides of the guidance on the way, and three rows."""
    known = teacher.other_is_empty(among_words.TRAJECTORY)
    alone = 2 * (max(ALONE_AT) + 1) + (2 if known else 3) * len(ALONE_AT)
    return len(ALONE) * alone + contexts * (2 * (max(CONTEXTS_AT) + 1) + 3 * len(CONTEXTS_AT))


def _alone(teacher: Teacher, vectors: Vectors, batch: int) -> dict[str, Tensor]:
    """The error of each row, of each seed (seeds,)."""
    trajectory = among_words.TRAJECTORY
    prompt = teacher.replaced(teacher.task.text, trajectory)
    states = teacher.record(prompt, trajectory, ALONE, batch, at=ALONE_AT)
    squares = {
        "embedding": errors(teacher.student(vectors), states, batch),
        "without weights": errors(bare_words(teacher, "{}", prompt, trajectory), states, batch),
        "empty": teacher.errors_of_nothing(states, trajectory, batch),
    }
    return {name: by_seed(value, states) for name, value in squares.items()}


def _spread(contexts: Sequence[str], number: int) -> list[str]:
    """So many of the contexts, from all over the list."""
    return [contexts[place * len(contexts) // number] for place in range(min(number, len(contexts)))]


def _pictured(teacher: Teacher, vectors: Vectors, template: str, trajectory: Trajectory) -> dict[str, Side]:
    """The rows of the images, with nothing in the prompt's place where the embedding stands alone."""
    rows = among_words.pictured(teacher, vectors, template, trajectory)
    return rows if template != "{}" else {**rows, "empty": teacher.replaced("", trajectory)}
