"""What a training part makes of a prompt: whether it can match it, and the contexts that it is matched in."""

from __future__ import annotations

import math
from dataclasses import replace

from embedding_estimate.errors import ModelError, PromptError, quoted
from embedding_estimate.model.contexts import Contexts
from embedding_estimate.teaching.plan import Phase
from embedding_estimate.teaching.sides import Side, alike
from embedding_estimate.teaching.teacher import Teacher, Trajectory

SCHEDULED = "the prompt changes during sampling and an embedding cannot: it is matched on average"
FEW = 3  # of the model's contexts, for parts in which each has a cost of its own


def check_text(teacher: Teacher, trajectory: Trajectory) -> None:
    """Raises `PromptError` for a prompt that is read as the empty one all along, which leaves nothing to measure by."""
    text = teacher.task.text
    (((nothing, _),),) = (stage.parts for stage in teacher.replaced("", trajectory).stages)
    stages = teacher.replaced(text, trajectory).stages
    if all(alike(conditioning, nothing) for stage in stages for conditioning, _ in stage.parts):
        check_effect(0.0, text)


def check_effect(empty: float, text: str) -> None:
    """Judges `held_out` of the empty prompt. Raises `PromptError` where the prompt does nothing, `ModelError` where the
    model gives no numbers."""
    if not math.isfinite(empty):
        raise ModelError(
            "the model's predictions are not finite numbers, which half precision causes with some models: run it "
            "in fp32, in a WebUI with 'Upcast cross attention layer to float32' or --no-half"
        )
    if empty == 0:
        raise PromptError(f"text={quoted(text)} does what the empty prompt does: write another")


def check_matchable(side: Side, where: str) -> list[str]:
    """For parts that match a context: the note on a schedule. Raises `PromptError` for `AND` and the weights behind its
    parts, with which predictions are composed `where` the part does not look."""
    if any(len(stage.parts) > 1 for stage in side.stages):
        raise PromptError(f"the prompt composes predictions with AND, {where}: choose the U-Net part, or drop AND")
    if side.composed:
        weight = side.stages[0].parts[0][1]
        raise PromptError(
            f"the prompt ends in a colon and a number, which as in parts of AND weigh its prediction with {weight:g}, "
            f"{where}: write (words:{weight:g}), put a comma behind, or choose the U-Net part"
        )
    return [SCHEDULED] if side.scheduled else []


def contexts_of(phase: Phase, teacher: Teacher) -> Contexts:
    """What an embedding is trained in, the bare prompt `{}` first, and what the best is chosen by: the phase's own
    templates or, where it has none, the model's contexts."""
    own = teacher.contexts
    if phase.templates:
        return replace(own, train=phase.templates, select=phase.templates)
    return replace(own, train=("{}", *own.train), select=("{}", *own.select))


def templates_of(phase: Phase, teacher: Teacher) -> tuple[str, ...]:
    """The templates, or a few of the model's contexts; of a prompt with `AND` only the bare one, where it is among
    them, since words around the prompt would stand in one of its parts only."""
    templates = phase.templates or tuple(contexts_of(phase, teacher).train[:FEW])
    composed = teacher.replaced(teacher.task.text, phase.trajectory).composed
    return tuple(template for template in templates if not composed or template == "{}") or templates


def seeds_of(first: int, number: int, example: int) -> range:
    """Seeds from `first` on, others for each example: the more pictures the better."""
    return range(first + example * number, first + (example + 1) * number)
