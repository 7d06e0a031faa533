"""What an estimate has made, as an embedding that tells of its making."""

from __future__ import annotations

from typing import Any

from embedding_estimate import __version__
from embedding_estimate.fidelity.protocol import Fidelity
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.model.host import BorrowedModel
from embedding_estimate.settings import Settings
from embedding_estimate.storage import phrases
from embedding_estimate.teaching.teacher import Task
from embedding_estimate.training.state import Training


def embedding_of(
    settings: Settings, model: BorrowedModel, training: Training, figures: Fidelity | None, task: Task
) -> Embedding:
    """The vectors with their provenance: enough to make them again, nothing of the machine."""
    made_with = settings.to_dict()
    if settings.private:
        for secret in ("text", "other_prompt", "initial_prompt", "templates"):
            del made_with[secret]
        figures = figures and figures.without_own_contexts()
    provenance: dict[str, Any] = {
        "version": __version__,
        "settings": made_with,
        "model": {"name": model.info.name, "hash": model.info.hash, "family": model.info.family},
        "clip_skip": model.info.clip_skip,
        "emphasis": model.info.emphasis,
        "typed_weight": task.typed_weight,
        "steps": training.step,
        "stopped": str(training.stopped),
        "fidelity": figures.to_dict() if figures else None,
    }
    vectors = training.saved or {key: value.float().cpu() for key, value in training.best.items()}
    if task.words:
        provenance |= phrases.record_of(settings.name, task.words, vectors)
    if model.info.networks:
        provenance["networks"] = list(model.info.networks)
    return Embedding(settings.name, vectors, provenance)
