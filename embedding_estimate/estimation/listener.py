"""Who is told of an estimate on its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedding_estimate.fidelity.protocol import Images, OnFigures
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.files.tensor_tree import Tree
from embedding_estimate.model.host import BorrowedModel, Vectors
from embedding_estimate.progress import OnProgress
from embedding_estimate.teaching.teacher import Teacher


def _nothing(*arguments: object) -> None:
    pass


@dataclass(frozen=True)
class Listener:
    """Functions that are called in this order; those that are not given do nothing.

    >>> estimate(settings, host, Listener(on_progress=print))
    """

    on_names: Callable[[Sequence[str]], None] = _nothing
    """Names of the files, before the work, where there may be several words."""
    on_notes: Callable[[Sequence[str]], None] = _nothing
    """What the user should know before the work; it is in the result's notes as well."""
    on_progress: OnProgress = _nothing
    on_snapshot: Callable[[Embedding, int], None] = _nothing
    """The best embedding so far and its step, at every `settings.save_every`-th step."""
    on_preview: Callable[[Teacher, Vectors, int], None] = _nothing
    """The teacher, the vectors beside it and their step, at every `settings.preview_every`-th step."""
    on_state: Callable[[Callable[[], Tree]], None] = _nothing
    """What collects the state from which the estimate can go on, after each learning step and before each phase."""
    on_trained: Callable[[Embedding], None] = _nothing
    """The embedding before it is measured, which may take longer than the training."""
    on_figures: OnFigures = _nothing
    """Figures by their names in `Fidelity`, each as soon as it is measured."""
    on_images: Callable[[BorrowedModel, Images], None] = _nothing
    """The latents of the images, while the model is there to decode them."""


NOBODY = Listener()
