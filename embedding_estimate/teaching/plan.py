"""What an estimate will do: its settings with every 0 and every "Automatic" resolved.

Objectives, optimizers and the loop are told by a `Phase` and never see `Settings`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from embedding_estimate.optimizers import FULL, automatic_steps
from embedding_estimate.settings import FEW_WORDS, Settings
from embedding_estimate.teaching.batches import usual
from embedding_estimate.teaching.teacher import Trajectory

SKETCH = "Sketch"  # comes before the Attention part
SKETCH_STEPS = 20  # learning steps, which are that part's first
ATTENTION_SAMPLER = "Euler"  # whatever is set: cheap, and its latents are like those of use
ATTENTION_SAMPLING = 6  # steps of the sampler at most: states are taken between them as well
REFINE = 1 / 2  # of the learning steps, for the part that only refines
SHARES = {"Quick": 1 / 2, "Balanced": 1.0, "Thorough": 2.0}  # of the usual work, by the effort
SCHEDULE = re.compile(r"(?<!\\)\[[^\[\]]*[:|]")  # [red:blue:5] and [red|blue]; [(red:1.2)] only looks like one
PATIENCE = 3  # checks without progress that end it, unless `early_stop` says otherwise


@dataclass(frozen=True)
class Phase:
    """One run of an optimizer over one objective."""

    part: str  # what is matched: `SKETCH` or a single training part
    trajectory: Trajectory  # how its states are drawn
    templates: tuple[str, ...]  # to train in and to choose by; none: the model's contexts
    seed: int
    share: float  # of the states that are usually recorded
    loss: str
    optimizer: str
    rate: float  # spreads per step; 0: automatic, by how far the start is from the prompt
    scheduler: str
    steps: int
    early_stop: int  # checks without progress that end it; 0: none do
    finds_weight: bool  # whether the weight of the name is solved for
    finds_words: bool  # whether the number of words is: as few as reach the goal
    emphasis_goal: float  # the emphasis explained that is enough then
    batch: int  # states that go through the U-Net together; 0: as many as fit
    attention_memory: int  # MB
    checkpointing: bool

    @property
    def drawn(self) -> int:
        """States or contexts that a learning step draws."""
        return usual(self.batch)


def phases(settings: Settings) -> tuple[Phase, ...]:
    """The phases that follow each other.

    >>> [(phase.part, phase.steps) for phase in phases(Settings(part="Attention + U-Net"))]
    [('Sketch', 20), ('Attention', 60), ('U-Net', 80)]
    """
    first, *more = (_single(settings, part) for part in settings.part.split(" + "))
    return (*_sketched(first), *map(_refining, more))


def learning_steps(settings: Settings) -> int:
    """Those of all phases."""
    return sum(phase.steps for phase in phases(settings))


def attention_steps(settings: Settings) -> int:
    """The sampler's steps in the Attention part. A schedule counts those that are set."""
    prompts = (settings.text, settings.templates, settings.other_prompt)
    return settings.steps if any(map(SCHEDULE.search, prompts)) else min(settings.steps, ATTENTION_SAMPLING)


def _single(settings: Settings, part: str) -> Phase:
    optimizer = replace(settings, part=part).optimizer_used
    alone = settings.template_list == ("{}",)
    trajectory = Trajectory.of(settings)
    if part == "Attention":
        trajectory = replace(trajectory, sampler=ATTENTION_SAMPLER, steps=attention_steps(settings))
    share = SHARES[settings.effort]
    steps = settings.learning_steps or math.ceil(share * automatic_steps(optimizer, part, alone=alone))
    return Phase(
        part=part,
        trajectory=trajectory,
        templates=settings.template_list,
        seed=settings.seed,
        share=share,
        loss=settings.loss,
        optimizer=optimizer,
        rate=settings.rate,
        scheduler=settings.scheduler,
        steps=steps,
        early_stop=settings.early_stop,
        finds_weight=settings.typed_weight == 0,
        finds_words=settings.words == FEW_WORDS,
        emphasis_goal=settings.emphasis_goal,
        batch=settings.batch,
        attention_memory=settings.attention_memory,
        checkpointing=settings.checkpointing,
    )


def _sketched(single: Phase) -> list[Phase]:
    """The first learning steps on a sketch, where LBFGS needs few steps."""
    if single.part != "Attention" or single.optimizer not in FULL or single.steps <= SKETCH_STEPS:
        return [single]
    if single.finds_words:  # each number of which starts elsewhere
        return [single]
    sketch = replace(
        single,
        part=SKETCH,
        finds_weight=False,
        steps=SKETCH_STEPS,
        templates=(next(iter(single.templates), "{}"),),
    )
    return [sketch, replace(single, steps=single.steps - SKETCH_STEPS)]


def _refining(single: Phase) -> Phase:
    return replace(
        single,
        finds_weight=False,  # found by then
        finds_words=False,
        steps=math.ceil(single.steps * REFINE),
        early_stop=single.early_stop or PATIENCE,
    )
