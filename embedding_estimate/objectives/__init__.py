"""What is matched. One file per training part; `preparation_of` knows them all."""

from __future__ import annotations

from embedding_estimate.objectives.attention import SKETCHED, AttentionPreparation
from embedding_estimate.objectives.objective import Preparation
from embedding_estimate.objectives.transformer import TransformerPreparation
from embedding_estimate.objectives.unet import UNetPreparation
from embedding_estimate.teaching.plan import SKETCH, Phase
from embedding_estimate.teaching.teacher import Teacher


def preparation_of(phase: Phase, teacher: Teacher) -> Preparation:
    """What prepares the objective of a phase."""
    if phase.part == SKETCH:
        return AttentionPreparation(phase, teacher, SKETCHED)
    kinds: dict[str, type[AttentionPreparation | UNetPreparation | TransformerPreparation]] = {
        "Attention": AttentionPreparation,
        "Transformer": TransformerPreparation,
        "U-Net": UNetPreparation,
    }
    return kinds[phase.part](phase, teacher)
