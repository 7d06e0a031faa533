"""Results as JSON knows them, the same on the command line and in the API."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding_estimate.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from embedding_estimate.estimation.dry_run import DryRun, PhaseWork
    from embedding_estimate.estimation.trainer import Estimate
    from embedding_estimate.fidelity.protocol import Fidelity
    from embedding_estimate.settings import Settings

FIGURES = (
    "explained",
    "emphasis_explained",
    "explained_without_weights",
    "explained_truncated",
    "explained_in_context",
    "explained_in_context_without_weights",
    "emphasis_in_context",
    "worst_context",
    "contexts",
    "own_contexts",
    "standard_errors",
    "image_distance",
)


def of_estimate(
    settings: Settings, estimate: Estimate, paths: Sequence[Path], seconds: float, stopped: bool
) -> dict[str, Any]:
    """An estimate that is saved, after so many seconds in all; figures that are not known are null."""
    return {
        "path": str(paths[0]),
        "paths": [str(path) for path in paths],
        "name": estimate.embedding.name,
        "phrase": estimate.phrase,
        "words_tried": [{"words": number, "emphasis": emphasis} for number, emphasis in estimate.words_tried],
        "tokens": estimate.embedding.tokens,
        "typed_weight": estimate.typed_weight,
        "part": settings.part,
        "steps": estimate.steps,
        **of_figures(estimate.fidelity),
        "seconds": seconds,
        "seconds_prepare": estimate.seconds_prepare,
        "seconds_train": estimate.seconds_train,
        "unet_forwards": estimate.unet_forwards,
        "unet_backwards": estimate.unet_backwards,
        "passes": asdict(estimate.passes),
        "stopped": "interrupted" if stopped else str(estimate.stopped),
        "notes": list(estimate.notes),
    }


def of_figures(figures: Fidelity | None) -> dict[str, Any]:
    """The figures by name, all null where nothing was measured."""
    return {name: getattr(figures, name) if figures else None for name in FIGURES}


def of_plan(plan: DryRun) -> dict[str, Any]:
    """A plan; sizes are in bytes, passes are [fewest, most]."""
    settings, task = plan.begun.settings, plan.begun.teacher.task
    return {
        "name": settings.name,
        "tokens": settings.tokens,
        "typed_weight": settings.typed_weight if settings.typed_weight == 0 else task.typed_weight,
        "words": [[{"weight": word.weight, "tokens": word.tokens} for word in words] for words in plan.begun.plans],
        "exact": plan.begun.exact is not None,
        "phases": [_of_phase(work) for work in plan.phases],
        "passes": {
            label: {
                "forwards": [passes.least.forwards, passes.most.forwards],
                "backwards": [passes.least.backwards, passes.most.backwards],
            }
            for label, passes in plan.stages.items()
        },
        "seconds": {**vars(plan.duration), "total": plan.duration.total},
        "memory": {**vars(plan.memory), "total": plan.memory.total},
        "notes": list(plan.begun.notes),
    }


def _of_phase(work: PhaseWork) -> dict[str, Any]:
    phase, row = work.phase, OPTIMIZERS[work.phase.optimizer]
    return {
        "part": phase.part,
        "optimizer": phase.optimizer,
        "rate": phase.rate or (row.rate if row.power == 0 else None),
        "most_rate": phase.rate or row.rate,
        "scheduler": phase.scheduler,
        "loss": phase.loss,
        "steps": phase.steps,
        "early_stop": phase.early_stop,
        "finds_weight": phase.finds_weight,
        "finds_words": phase.finds_words,
        "contexts": list(work.contexts),
        "stages": [{"steps": steps, "contexts": contexts} for steps, contexts in work.stages],
        "trajectory": vars(work.phase.trajectory),
    }


def finite(value: Any) -> Any:
    """The value with null for every number that JSON has no way to write."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
