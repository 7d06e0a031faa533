"""How much memory an estimate is expected to take on top of the loaded model."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch

from embedding_estimate.model.host import BorrowedModel, Conditioning, Vectors
from embedding_estimate.objectives.attention import AttentionPreparation
from embedding_estimate.objectives.objective import Objective, Preparation
from embedding_estimate.optimizers import FULL, OPTIMIZERS
from embedding_estimate.teaching import probing
from embedding_estimate.teaching.batches import kept
from embedding_estimate.teaching.plan import Phase
from embedding_estimate.teaching.teacher import Teacher

SMALL = 32  # latent cells along one side of the pass that is measured; what it keeps grows as their number
PER_STATE = 3  # latents: the state itself, and the predictions of both sides of the guidance


@dataclass(frozen=True)
class Memory:
    """Bytes on top of the model's own, in the phase that takes most."""

    unet: int = 0  # what the U-Net keeps for a backward pass of all latents that go through it together
    text_encoder: int = 0  # the same of the text encoder, for all contexts of a learning step
    rows: int = 0  # of cross-attentions
    states: int = 0  # recorded
    vectors: int = 0  # with their gradients and the optimizer's own numbers

    @property
    def total(self) -> int:
        """All of it together."""
        return sum(getattr(self, field.name) for field in fields(self))


class Expectation:
    """What the phases take, on the model that will run them."""

    def __init__(self, model: BorrowedModel, teacher: Teacher):
        """`model` has its U-Net, one latent goes through it for each kind of pass; `teacher` may be without."""
        self._model = model
        self._teacher = teacher
        scale = model.info.latent_scale
        self._cells = (teacher.task.width // scale) * (teacher.task.height // scale)
        self._of_one: dict[bool, int] = {}  # bytes of one latent, with and without checkpoints

    def of(self, preparation: Preparation, objective: Objective[Any], start: Vectors) -> Memory:
        """That of a phase whose preparation and objective these are, for vectors like `start`."""
        phase = objective.phase
        leaves = {key: value.detach().clone().requires_grad_() for key, value in start.items()}
        draw = objective.of_a_step(torch.Generator().manual_seed(phase.seed), sparing=phase.checkpointing)[0]
        rows = preparation.megabytes(start) * 2**20 if isinstance(preparation, AttentionPreparation) else 0
        of_a_state = PER_STATE * self._cells * self._model.info.latent_channels * 4
        return Memory(
            unet=self._unet(phase),
            text_encoder=kept(lambda: objective.loss(leaves, draw)),
            rows=round(rows),
            states=preparation.states_to_record * of_a_state,
            vectors=sum(value.numel() for value in start.values()) * 4 * _copies(phase.optimizer),
        )

    def _unet(self, phase: Phase) -> int:
        if phase.part == "Transformer":
            return 0
        if phase.part == "U-Net":
            return phase.drawn * self._one(phase.checkpointing)
        several = probing.together(self._model, self._cells, phase.batch, checkpointed=phase.checkpointing)
        return several.latents * self._one(several.checkpointed)

    def _one(self, checkpointed: bool) -> int:
        if checkpointed not in self._of_one:
            side = min(SMALL, int(self._cells**0.5))
            x = torch.zeros(1, self._model.info.latent_channels, side, side, device=self._model.device)
            own = self._teacher.encode_vectors(self._model.token_vectors("x"))
            learned = Conditioning(own.context.detach().requires_grad_(), own.vector)
            with self._model.checkpointed() if checkpointed else nullcontext():
                size = kept(lambda: self._model.denoise(x, torch.ones_like(x[:, 0, 0, 0]), learned))
            self._of_one[checkpointed] = round(size * self._cells / side**2)
        return self._of_one[checkpointed]


def _copies(optimizer: str) -> int:
    """Numbers that are held for each one that is trained: itself, its gradient, its average and the optimizer's own."""
    history = int(OPTIMIZERS[optimizer].options.get("history_size", 1))
    return 3 + (2 * history if optimizer in FULL else 2)
