"""How faithful an embedding is to its prompt: one protocol, the same for every part, host and tool.

Protocol v2. States x of the teacher's own trajectories: 20 Euler steps on Karras sigmas (Karras et al. 2022) at
guidance scale 7 and the model's own size, from 8 seeds that nothing was trained or chosen on. For the side replaced:

    err(c)             = mean over states of |D(x; c) - D(x; prompt)|^2 / sigma^2
    explained          = 1 - err(embedding) / err(empty prompt)
    emphasis_explained = 1 - err(embedding) / err(prompt with every weight 1)
    explained_in_context = 1 - sum of err(T[embedding]) / sum of err(T[nothing]), over contexts T; see `among_words`
    emphasis_in_context  = 1 - sum of err(T[embedding]) / sum of err(T[prompt with every weight 1])
    image_distance     = |z(embedding) - z(prompt)|^2 / |z(empty) - z(prompt)|^2, same-seed latents of 16 seeds

1 is the prompt itself (0 for `image_distance`). `explained` flatters: the bare words of a long prompt reach 0.99. So
where the prompt has weights `emphasis_in_context` is the figure to look at; below 0 one had better type the words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.fidelity import among_words
from embedding_estimate.fidelity.among_words import NO_EMPHASIS, Context, InContexts, by_seed, ratio, standard_error
from embedding_estimate.model.host import MODES, BorrowedModel, Vectors
from embedding_estimate.model.meter import Meter
from embedding_estimate.model.vectors import count, fit
from embedding_estimate.teaching.recall import Recall
from embedding_estimate.teaching.sides import Side, errors, twins
from embedding_estimate.teaching.teacher import REPORT_SEED, Task, Teacher, Trajectory

PROTOCOL = "v2"
TRAJECTORY = Trajectory("Euler", "Karras", 20, 7.0)
SEEDS = range(REPORT_SEED, REPORT_SEED + 8)
IMAGE_SEEDS = range(REPORT_SEED, REPORT_SEED + 16)
PICTURED = ("prompt", "embedding", "without weights", "empty")  # rows that images are made of
OnFigures = Callable[[Mapping[str, float | None]], None]
"""Gets figures by their names in `Fidelity`, as soon as they are measured."""


@dataclass(frozen=True)
class Fidelity:
    """The figures of one embedding. A figure for weights is None if the prompt's weights have almost no effect, or if
    quick figures are not sure of it."""

    protocol: str
    explained: float
    emphasis_explained: float | None
    explained_without_weights: float  # the prompt's own words, every weight 1
    explained_truncated: float | None  # the prompt's first N token vectors, untrained; None in quick figures
    explained_in_context: float
    explained_in_context_without_weights: float
    emphasis_in_context: float | None
    worst_context: str  # the context with the largest loss against the words without weights
    contexts: Sequence[Mapping[str, Any]]  # errors in each: of the embedding, the bare words, nothing
    standard_errors: Mapping[str, float | None]  # of the figures over seeds or contexts, by name
    image_distance: float | None  # None unless all images were asked for
    image_distance_without_weights: float | None  # divided by the distance of the unweighted prompt's images
    errors: Mapping[str, float]  # err by row; beside a typed weight also of the bare name and of other modes
    typed_weight: float = 1.0  # that all of the above is measured at, as in (name:1.2)
    explained_bare: float | None = None  # of the name typed without that weight; None if there is no such weight
    emphasis_explained_bare: float | None = None
    explained_in_context_bare: float | None = None
    emphasis_in_context_bare: float | None = None
    explained_in_modes: Mapping[str, float] = field(default_factory=dict)
    """Of a typed weight under other settings for emphasis, by `host.MODES`; under "Ignore" it is the bare name."""
    pictured_context: str = ""  # the context of the images; empty if none were asked for
    own_contexts: bool = False  # whether the user gave the contexts, so that the figures there compare with no others

    @property
    def quick(self) -> bool:
        """Whether these are quick figures, see `fidelity.quick`."""
        return self.protocol != PROTOCOL

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def without_own_contexts(self) -> Fidelity:
        """The same figures without the text of the user's own contexts."""
        if not self.own_contexts:
            return self
        rows = [{**row, "context": ""} for row in self.contexts]
        return replace(self, worst_context="", pictured_context="", contexts=rows)


@dataclass(frozen=True)
class Images:
    """Same-seed latents (seeds, C, h, w) by row. Empty if no images were asked for."""

    latents: Mapping[str, Tensor]
    in_context: Mapping[str, Tensor] = field(default_factory=dict)  # in `Fidelity.pictured_context`, of fewer seeds


class PassBar:
    """Counts passes up to the number foreseen, which they may not reach, or go beyond."""

    def __init__(self, on_progress: Callable[[int, int], None]):
        self._on_progress = on_progress
        self._passed = self._total = 0

    def begin(self, total: int) -> None:
        self._total = total
        self._on_progress(0, total)

    def tick(self, passes: int) -> None:
        if self._passed + passes < self._total:
            self._passed += passes
            self._on_progress(self._passed, self._total)

    def end(self) -> None:
        self._on_progress(self._total, self._total)


def measure(
    model: BorrowedModel,
    task: Task,
    vectors: Vectors,
    *,
    batch: int,
    images: int = len(IMAGE_SEEDS),
    contexts: Sequence[str] = (),
    recall: Recall | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_figures: OnFigures = lambda figures: None,
) -> tuple[Fidelity, Images]:
    """Measures vectors against the task's prompt by protocol v2.

    Args:
        model: the loaded model.
        task: the prompt, its side of the guidance, and the weight that the name is typed with.
        vectors: (N, width) by encoder.
        batch: states in one pass of the U-Net. It changes the speed only.
        images: number of seeds to make images of, most of the work. With fewer than the protocol's 16, the image
            distances are None.
        contexts: the user's own, each with `{}` where the embedding stands. Empty: those of the model's report.
        recall: what the prompt, its words and nothing did in earlier jobs.
        on_progress: gets the passes of one latent so far and in all. A prompt with `AND` needs more than foreseen.
        on_figures: gets the figures alone, and then those in contexts, each as soon as they are measured.
    """
    bar = PassBar(on_progress)
    size = model.info.default_size
    teacher = Teacher(Meter(model, bar.tick), replace(task, width=size, height=size), recall=recall)
    rows = _rows(teacher, vectors)
    weights = dict.fromkeys((task.typed_weight, 1.0))  # what the name is typed with, and without a weight
    same = twins(rows)
    one_sided = {"empty"} if teacher.other_is_empty(TRAJECTORY) else set()  # both sides of the guidance are one
    known = {"prompt", *same, *one_sided}
    drawn = {name: IMAGE_SEEDS[:images] for name in PICTURED if name not in same}
    drawn["prompt"] = drawn["prompt"][len(SEEDS) :]  # the trajectories of its states end in the first images
    total = _work(len(SEEDS), 2 + len(rows) - len(known))
    templates = contexts or teacher.contexts.report
    total += among_words.work(len(templates), len(weights))
    total += sum(_work(len(seeds), 1 if name in one_sided else 2) for name, seeds in drawn.items())
    shown = among_words.pictured_context(teacher, templates) if images else ""
    inside = among_words.pictured(teacher, vectors, shown, TRAJECTORY) if images else {}
    same_inside, few = twins(inside), IMAGE_SEEDS[: min(images, among_words.PICTURED_SEEDS)]
    total += _work(len(few), 2 * (len(inside) - len(same_inside)))
    bar.begin(total)
    states, ends = teacher.record_and_end(rows["prompt"], TRAJECTORY, SEEDS, batch)
    squares = {"prompt": torch.zeros_like(states.sigma)}  # by row: (S,)
    for name, side in rows.items():
        if name in same:
            squares[name] = squares[same[name]]
        elif name == "empty":
            squares[name] = teacher.errors_of_nothing(states, TRAJECTORY, batch)
        elif name != "prompt":
            squares[name] = errors(side, states, batch)

    by_row = {name: by_seed(value, states) for name, value in squares.items()}  # (seeds,)
    explained, emphasis = figures_alone({name: float(value.mean()) for name, value in by_row.items()})
    on_figures({"explained": explained, "emphasis_explained": emphasis})
    measured = _among_words(teacher, vectors, templates, weights, batch)
    in_contexts = {weight: InContexts.of_weight(measured, weight) for weight in weights}
    typed = in_contexts[task.typed_weight]
    on_figures({"explained_in_context": typed.explained, "emphasis_in_context": typed.emphasis})
    latents: dict[str, Tensor] = {}
    for name, seeds in drawn.items() if images else ():
        parts = [ends[:images]] if name == "prompt" else []
        if seeds:
            parts.append(teacher.run(rows[name], TRAJECTORY, seeds, batch))
        latents[name] = torch.cat(parts)
    latents = {name: latents[same.get(name, name)] for name in PICTURED if images}
    in_context = {
        name: teacher.run(side, TRAJECTORY, few, batch) for name, side in inside.items() if name not in same_inside
    }
    in_context |= {name: in_context[elder] for name, elder in same_inside.items()}
    bar.end()
    compared = latents if images == len(IMAGE_SEEDS) else {}
    figures = _figures(task.typed_weight, by_row, in_contexts, compared)
    return replace(figures, pictured_context=shown, own_contexts=bool(contexts)), Images(latents, in_context)


def _among_words(
    teacher: Teacher, vectors: Vectors, templates: Sequence[str], weights: Iterable[float], batch: int
) -> list[tuple[float, Context, float]]:
    """The error of each typed weight in each context. Each context has a seed of its own while there are enough."""
    own = teacher.task.typed_weight
    typed = {weight: teacher if weight == own else teacher.typed(weight) for weight in weights}
    measured = []
    for number, template in enumerate(templates):
        here = Context.of(teacher, template, among_words.TRAJECTORY, SEEDS[number % len(SEEDS)], batch)
        for weight, typed_teacher in typed.items():
            measured.append((weight, here, here.error(typed_teacher, vectors, batch)))
    return measured


def _work(seeds: int, calls: int) -> int:
    """U-Net passes of one latent: `calls` at each state of the trajectories of so many seeds."""
    return seeds * TRAJECTORY.steps * calls


def _rows(teacher: Teacher, vectors: Vectors) -> dict[str, Side]:
    """All prompts that are compared, as sides."""
    text = teacher.task.text
    plain = teacher.model.token_vectors(text)
    truncated = fit(plain, min(count(vectors), count(plain)))
    bare = teacher.typed(1.0)
    rows = {
        "prompt": teacher.replaced(text, TRAJECTORY),
        "embedding": teacher.student(vectors),
        "without weights": teacher.replaced(text, TRAJECTORY, weights=False),
        "empty": teacher.replaced("", TRAJECTORY),
        "truncated": bare.student(truncated),
    }
    if teacher.task.typed_weight == 1:
        return rows
    rows["bare name"] = bare.student(vectors)
    for mode in teacher.model.emphasis_modes:
        if mode != teacher.model.info.emphasis:
            with teacher.model.mode(mode):
                rows[mode] = teacher.student(vectors)
    return rows


def _figures(
    typed_weight: float,
    rows: Mapping[str, Tensor],
    in_contexts: Mapping[float, InContexts],
    latents: Mapping[str, Tensor],
) -> Fidelity:
    """The figures of the errors (seeds,) by row, of those in contexts by typed weight, and of same-seed latents."""
    err = {name: float(value.mean()) for name, value in rows.items()}
    empty, unweighted, bare = err["empty"], err["without weights"], err.get("bare name")
    explained, emphasis = figures_alone(err)
    emphasised = emphasis is not None
    distance = {name: _distance(value, latents["prompt"]) for name, value in latents.items()}
    inside, inside_bare = in_contexts[typed_weight], in_contexts[1.0]
    return Fidelity(
        protocol=PROTOCOL,
        explained=explained,
        emphasis_explained=emphasis,
        explained_without_weights=1 - ratio(unweighted, empty),
        explained_truncated=1 - ratio(err["truncated"], empty),
        explained_in_context=inside.explained,
        explained_in_context_without_weights=inside.without_weights,
        emphasis_in_context=inside.emphasis,
        worst_context=inside.worst,
        contexts=inside.rows,
        standard_errors={
            "explained": standard_error(rows["embedding"], rows["empty"]),
            "emphasis_explained": standard_error(rows["embedding"], rows["without weights"]) if emphasised else None,
            **inside.standard_errors,
        },
        image_distance=ratio(distance["embedding"], distance["empty"]) if distance else None,
        image_distance_without_weights=(
            ratio(distance["embedding"], distance["without weights"]) if distance and emphasised else None
        ),
        errors=err,
        typed_weight=typed_weight,
        explained_bare=None if bare is None else 1 - ratio(bare, empty),
        emphasis_explained_bare=None if bare is None or not emphasised else 1 - ratio(bare, unweighted),
        explained_in_context_bare=None if bare is None else inside_bare.explained,
        emphasis_in_context_bare=None if bare is None else inside_bare.emphasis,
        explained_in_modes={mode: 1 - ratio(err[mode], empty) for mode in MODES if mode in err},
    )


def figures_alone(err: Mapping[str, float]) -> tuple[float, float | None]:
    """`explained` and `emphasis_explained` by the error of each row. The latter is None if weights have no effect."""
    emphasised = err["without weights"] >= NO_EMPHASIS * err["empty"]
    emphasis = 1 - ratio(err["embedding"], err["without weights"]) if emphasised else None
    return 1 - ratio(err["embedding"], err["empty"]), emphasis


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean())
