"""The training parts that an estimate consists of, and what each does with its settings."""

from __future__ import annotations

import math
from dataclasses import replace

from embedding_estimate.optimizers import FULL, OPTIMIZERS
from embedding_estimate.settings import Settings

SKETCH = "Sketch"  # comes before the Attention part
SKETCH_STEPS = 20  # learning steps, which are that part's first
SKETCH_SAMPLING = 6  # steps of the sampler
REFINE = 1 / 3  # of the learning steps, for the part that only refines
PATIENCE = 3  # checks without progress that end it, unless `early_stop` says otherwise


def in_turn(settings: Settings) -> list[Settings]:
    """The settings of each single part, with its number of learning steps."""
    first, *more = (_alone(settings, part) for part in settings.part.split(" + "))
    return [*_sketched(first), *map(_refining, more)]


def _alone(settings: Settings, part: str) -> Settings:
    alone = replace(settings, part=part)
    return replace(alone, learning_steps=alone.learning_steps or OPTIMIZERS[alone.optimizer_used].steps)


def _sketched(part: Settings) -> list[Settings]:
    """The first learning steps on a sketch, where the number of vectors is known and LBFGS needs few steps."""
    quick = part.optimizer_used in FULL and part.learning_steps > SKETCH_STEPS
    if part.part != "Attention" or not quick or not part.tokens:
        return [part]
    sketch = replace(
        part,
        part=SKETCH,
        optimizer=part.optimizer_used,
        typed_weight=part.typed_weight or 1.0,
        learning_steps=SKETCH_STEPS,
        steps=min(part.steps, SKETCH_SAMPLING),
        templates="\n".join(part.template_list[:1]),
    )
    return [sketch, replace(part, learning_steps=part.learning_steps - SKETCH_STEPS)]


def _refining(part: Settings) -> Settings:
    return replace(
        part,
        typed_weight=part.typed_weight or 1.0,  # found by then
        learning_steps=math.ceil(part.learning_steps * REFINE),
        early_stop=part.early_stop or PATIENCE,
    )
