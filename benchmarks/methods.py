"""One prompt, one method: vectors on the way to their best, each with the time it took to get there."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.prompts import Prompt
from benchmarks.reference import RATES, Reference
from benchmarks.summary import REFERENCE, RIVALS
from benchmarks.yardstick import Score, Yardstick
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.model.host import BorrowedModel, Host, Vectors
from embedding_estimate.model.vectors import VectorSpace, count, fit
from embedding_estimate.objectives import preparation_of
from embedding_estimate.objectives.objective import at_weight
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.plan import learning_steps, phases
from embedding_estimate.teaching.teacher import Task, Teacher
from embedding_estimate.training.handlers import Watch
from embedding_estimate.training.loop import train
from embedding_estimate.training.start import starting_vectors
from embedding_estimate.training.state import Training

METHODS: Mapping[str, Mapping[str, Any]] = {
    "transformer": {"part": "Transformer"},
    "unet": {"part": "U-Net"},
    "attention": {"part": "Attention"},
    "attention+unet": {"part": "Attention + U-Net"},
    "attention-typed": {"part": "Attention", "typed_weight": 0.0},
}
"""Ours, by name, in the order of their turns: the settings that differ from the defaults."""
REFERENCE_STEPS = 150
WATCH_EVERY = 10  # learning steps between two looks at how faithful the vectors are
WATCH_CLOSELY = 5  # where a step takes milliseconds
CEILING_STEPS = 20  # times the default, at most
CEILING_PATIENCE = 40  # checks without progress that end a start
RANDOM_STARTS = 2


@dataclass(frozen=True)
class Point:
    """Vectors on the way."""

    seconds: float
    vectors: Vectors


@dataclass(frozen=True)
class Run:
    """A method on a prompt."""

    result: Score
    inside: Sequence[float]  # err(T[embedding]) by context
    seconds: float  # all of them, its own preparation included
    seconds_to: Mapping[str, float | None]  # a rival's best, or its own; None: never reached
    typed_weight: float = 1.0
    unet_forwards: int | None = None  # samples; None: not counted
    unet_backwards: int | None = None


@dataclass(frozen=True)
class Case:
    """A prompt, ready to be measured on."""

    prompt: Prompt
    tokens: int  # N
    yardstick: Yardstick

    @classmethod
    def of(cls, prompt: Prompt, host: Host, tokens_factor: float = 1.0) -> Case:
        """With so many vectors per token of the prompt, at least one and no more than a chunk holds."""
        with host.borrow() as model:
            size = model.info.default_size
            task = Task(prompt.text, prompt.negative, prompt.other or ("",), size, size)
            tokens = max(1, round(tokens_factor * count(model.token_vectors(prompt.text))))
            return cls(prompt, min(tokens, model.info.chunk_tokens), Yardstick.of(model, task))

    def settings(self, method: str, seed: int) -> Settings:
        """As a user gives them; with snapshots that tell how faithful the vectors are on the way."""
        return Settings(
            text=self.prompt.text,
            prompt_type="Negative Prompt" if self.prompt.negative else "Prompt",
            other_prompt="\n".join(self.prompt.other),
            tokens=self.tokens,
            seed=seed,
            name="measured",
            measure="Nothing",
            save_every=WATCH_CLOSELY if METHODS[method]["part"].startswith("Attention") else WATCH_EVERY,
            **METHODS[method],
        )


def run_reference(host: Host, case: Case, *, seed: int, random_start: bool = False) -> Run:
    """The reference at the best of its rates and at its best point, both chosen by the report states themselves.

    It is given what nobody has in earnest: evaluations are off its clock, and so are the rates that turn out worse.
    """
    with host.borrow() as model:
        space = VectorSpace.of(model)
        plain = fit(model.token_vectors(case.prompt.text), case.tokens, model.padding_vectors())
        start = space.random(case.tokens, seed) if random_start else plain
        spread = sum(space.spread.values()) / len(space.spread)
        reference = Reference(model, case.yardstick.task, seed)
        ways = [_way(start, reference.learn(start, rate * spread)) for rate in RATES]
        points = [(point, way[-1].seconds) for way in ways for point in way]
        best, seconds = min(points, key=lambda pair: case.yardstick.glance(model, pair[0].vectors))
        result = case.yardstick.measure(model, best.vectors)
        return Run(result, case.yardstick.inside(model, best.vectors), seconds, {REFERENCE: best.seconds})


def _way(start: Vectors, learning: Iterator[Vectors]) -> list[Point]:
    """The start, and the vectors after every tenth learning step."""
    began = time.perf_counter()
    watched = itertools.islice(learning, WATCH_EVERY - 1, REFERENCE_STEPS, WATCH_EVERY)
    return [Point(0.0, start), *(Point(time.perf_counter() - began, vectors) for vectors in watched)]


def run_ours(host: Host, case: Case, method: str, *, seed: int, to_reach: Mapping[str, float]) -> Run:
    """An estimate as a user gets it; snapshots on the way tell when the figures `to_reach`, by rival, were reached.

    Their clock starts at the call, so borrowing the model counts too. They are measured when it has stopped.
    """
    way: list[Point] = []
    began = time.perf_counter()

    def keep(embedding: Embedding, step: int) -> None:
        way.append(Point(time.perf_counter() - began, embedding.vectors))

    result = estimate(case.settings(method, seed), host, Listener(on_snapshot=keep))
    way.append(Point(result.seconds_prepare + result.seconds_train, result.embedding.vectors))
    yardstick = case.yardstick.typed(result.typed_weight)
    with host.borrow() as model:
        way = [replace(p, vectors={key: value.to(model.device) for key, value in p.vectors.items()}) for p in way]
        *_, last = way
        score = yardstick.measure(model, last.vectors)
        if method in RIVALS and score.emphasis_explained is not None:
            to_reach = {**to_reach, method: score.emphasis_explained}
        return Run(
            result=score,
            inside=yardstick.inside(model, last.vectors),
            seconds=last.seconds,
            seconds_to=_reached(yardstick, model, way, to_reach),
            typed_weight=result.typed_weight,
            unet_forwards=result.unet_forwards,
            unet_backwards=result.unet_backwards,
        )


def _reached(
    yardstick: Yardstick, model: BorrowedModel, way: Sequence[Point], to_reach: Mapping[str, float]
) -> dict[str, float | None]:
    """The seconds of the first point that is as good as each rival's best; what comes after all is not measured."""
    reached: dict[str, float | None] = dict.fromkeys(to_reach)
    for point in way:
        left = [rival for rival, seconds in reached.items() if seconds is None]
        if not left:
            break
        figure = yardstick.measure(model, point.vectors).figure
        reached |= {rival: point.seconds for rival in left if figure >= to_reach[rival]}
    return reached


def run_ceiling(host: Host, case: Case, *, seed: int) -> Run:
    """What the Attention part's vectors could reach among other words, if nothing had to hold in unseen contexts.

    They learn in the contexts that they are measured in, many times as long, from the prompt's own and from random
    vectors, and the figures themselves choose the best.
    """
    settings = case.settings("attention", seed)
    *_, phase = phases(settings)
    steps = CEILING_STEPS * learning_steps(settings)
    templates = tuple(context.template for context in case.yardstick.contexts)
    phase = replace(phase, steps=steps, early_stop=CEILING_PATIENCE, templates=templates)
    watch = Watch(on_progress=lambda progress: None, on_snapshot=lambda training, teacher, step: None, stop=StopToken())
    began = time.perf_counter()
    with host.borrow() as model:
        space = VectorSpace.of(model)
        own = starting_vectors(settings, model)
        objective = preparation_of(phase, Teacher(model, case.yardstick.task)).prepare(own)
        ends = []
        for start in (own, *(space.random(case.tokens, seed + number) for number in range(RANDOM_STARTS))):
            training = Training(start)
            train(training, at_weight(objective, 1.0, start), space, watch)
            ends.append(training.best)
        seconds = time.perf_counter() - began
        best = min(ends, key=lambda vectors: sum(case.yardstick.inside(model, vectors)))
        return Run(case.yardstick.measure(model, best), case.yardstick.inside(model, best), seconds, {})
