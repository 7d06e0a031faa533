"""The training parts that an estimate consists of, and what each does with its settings."""

from __future__ import annotations

import math
from dataclasses import replace

from embedding_estimate.optimizers import FULL, automatic_steps
from embedding_estimate.settings import Settings

SKETCH = "Sketch"  # comes before the Attention part
SKETCH_STEPS = 20  # learning steps, which are that part's first
SKETCH_SAMPLING = 6  # steps of the sampler
REFINE = 1 / 2  # of the learning steps, for the part that only refines
PATIENCE = 3  # checks without progress that end it, unless `early_stop` says otherwise


def in_turn(settings: Settings) -> list[Settings]:
    """The settings of each single part, with its number of learning steps."""
    first, *more = (_single(settings, part) for part in settings.part.split(" + "))
    return [*_sketched(first), *map(_refining, more)]


def learning_steps(settings: Settings) -> int:
    """Those of all parts."""
    return sum(part.learning_steps for part in in_turn(settings))


def _single(settings: Settings, part: str) -> Settings:
    single = replace(settings, part=part)
    steps = single.learning_steps or automatic_steps(single.optimizer_used, part, alone=single.template_list == ("{}",))
    return replace(single, learning_steps=steps)


def _sketched(single: Settings) -> list[Settings]:
    """The first learning steps on a sketch, where LBFGS needs few steps."""
    quick = single.optimizer_used in FULL and single.learning_steps > SKETCH_STEPS
    if single.part != "Attention" or not quick:
        return [single]
    sketch = replace(
        single,
        part=SKETCH,
        optimizer=single.optimizer_used,
        typed_weight=single.typed_weight or 1.0,
        learning_steps=SKETCH_STEPS,
        steps=min(single.steps, SKETCH_SAMPLING),
        templates=next(iter(single.template_list), "{}"),
    )
    return [sketch, replace(single, learning_steps=single.learning_steps - SKETCH_STEPS)]


def _refining(single: Settings) -> Settings:
    return replace(
        single,
        typed_weight=single.typed_weight or 1.0,  # found by then
        learning_steps=math.ceil(single.learning_steps * REFINE),
        early_stop=single.early_stop or PATIENCE,
    )
