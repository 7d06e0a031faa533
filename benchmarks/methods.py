"""One prompt, one method: vectors on the way to their best, each with the time it took to get there."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.prompts import Prompt
from benchmarks.reference import RATES, Reference
from benchmarks.yardstick import Score, Yardstick
from embedding_estimate.embedding import Embedding
from embedding_estimate.host import Host, Vectors
from embedding_estimate.settings import Settings
from embedding_estimate.teacher import Task
from embedding_estimate.trainer import estimate
from embedding_estimate.vectors import VectorSpace, count, fit

METHODS: Mapping[str, Mapping[str, Any]] = {"transformer": {"part": "Transformer"}, "unet": {"part": "U-Net"}}
"""Ours, by name: the settings that differ from the defaults."""
REFERENCE_STEPS = 150
WATCH_EVERY = 10  # learning steps between two looks at how faithful the vectors are


@dataclass(frozen=True)
class Point:
    """Vectors on the way."""

    seconds: float
    vectors: Vectors


@dataclass(frozen=True)
class Run:
    """A method on a prompt."""

    result: Score
    seconds: float  # all of them, its own preparation included
    seconds_to_best: float | None  # to the reference's best; None: never reached, or there is none


@dataclass(frozen=True)
class Case:
    """A prompt, ready to be measured on."""

    prompt: Prompt
    tokens: int  # N, as many as the prompt has
    yardstick: Yardstick

    @classmethod
    def of(cls, prompt: Prompt, host: Host) -> Case:
        with host.borrow() as model:
            size = model.info.default_size
            task = Task(prompt.text, prompt.negative, prompt.other or ("",), size, size)
            tokens = min(count(model.token_vectors(prompt.text)), model.info.chunk_tokens)
            return cls(prompt, tokens, Yardstick.of(model, task))


def run_reference(host: Host, case: Case, *, seed: int, random_start: bool = False) -> Run:
    """The reference at the best of its rates and at its best point, both chosen by the report states themselves.

    It is given what nobody has in earnest: evaluations are off its clock, and so are the rates that turn out worse.
    """
    with host.borrow() as model:
        space = VectorSpace.of(model)
        plain = fit(model.token_vectors(case.prompt.text), case.tokens)
        start = space.random(case.tokens, seed) if random_start else plain
        spread = sum(space.spread.values()) / len(space.spread)
        reference = Reference(model, case.yardstick.task, seed)
        ways = [_way(start, reference.learn(start, rate * spread)) for rate in RATES]
        points = [(point, way[-1].seconds) for way in ways for point in way]
        best, seconds = min(points, key=lambda pair: case.yardstick.glance(model, pair[0].vectors))
        return Run(case.yardstick.measure(model, best.vectors), seconds, best.seconds)


def _way(start: Vectors, learning: Iterator[Vectors]) -> list[Point]:
    """The start, and the vectors after every tenth learning step."""
    began = time.perf_counter()
    watched = itertools.islice(learning, WATCH_EVERY - 1, REFERENCE_STEPS, WATCH_EVERY)
    return [Point(0.0, start), *(Point(time.perf_counter() - began, vectors) for vectors in watched)]


def run_ours(host: Host, case: Case, method: str, *, seed: int, to_reach: float | None) -> Run:
    """An estimate as a user gets it; snapshots on the way tell when `to_reach` was reached.

    Their clock starts at the call, so borrowing the model counts too. They are measured when it has stopped.
    """
    prompt = case.prompt
    settings = Settings(
        text=prompt.text,
        prompt_type="Negative Prompt" if prompt.negative else "Prompt",
        other_prompt="\n".join(prompt.other),
        tokens=case.tokens,
        seed=seed,
        name="measured",
        measure="Nothing",
        save_every=0 if to_reach is None else WATCH_EVERY,
        **METHODS[method],
    )
    way: list[Point] = []
    began = time.perf_counter()

    def keep(embedding: Embedding, step: int) -> None:
        way.append(Point(time.perf_counter() - began, embedding.vectors))

    result = estimate(settings, host, on_snapshot=keep)
    seconds = result.seconds_prepare + result.seconds_train
    with host.borrow() as model:
        on_device = {key: value.to(model.device) for key, value in result.embedding.vectors.items()}
        score = case.yardstick.measure(model, on_device)
        reached = None
        if to_reach is not None:
            on_the_way = ((point.seconds, case.yardstick.measure(model, point.vectors)) for point in way)
            scores = itertools.chain(on_the_way, [(seconds, score)])
            reached = next((at for at, s in scores if s.figure >= to_reach), None)
    return Run(score, seconds, reached)
