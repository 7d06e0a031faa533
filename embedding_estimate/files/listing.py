"""What an embedding file holds in short, read without torch, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding_estimate.files import embedding, formats, provenance

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Listing:
    """The vectors of an embedding by their lengths, and how it was made."""

    name: str
    norms: Mapping[str, Sequence[float]]  # encoder key, or SINGLE -> one for each vector
    widths: Mapping[str, int]
    provenance: Mapping[str, Any]

    @property
    def tokens(self) -> int:
        """N, the number of tokens that the embedding occupies in a prompt."""
        return len(next(iter(self.norms.values())))


def read(path: Path) -> Listing:
    """The listing of a file that `embedding.read` reads. Raises what that raises."""
    contents = formats.contents(path)
    if not _sound(contents.vectors):
        embedding.of_contents(contents, path)  # names the fault
    return Listing(
        embedding.name_in(contents, path),
        {key: _norms(array) for key, array in contents.vectors.items()},
        {key: array.shape[1] for key, array in contents.vectors.items()},
        provenance.read(contents.provenance),
    )


def _sound(vectors: Mapping[str, NDArray[Any]]) -> bool:
    """Whether they are as many finite vectors of floats for each encoder, at least one."""
    arrays = vectors.values()
    if not all(array.dtype.kind == "f" and array.ndim == 2 and array.size for array in arrays):
        return False
    largest = float(np.finfo(np.float32).max)
    return len({len(array) for array in arrays}) == 1 and all(
        bool((abs(array.astype(float)) <= largest).all()) for array in arrays
    )


def _norms(array: NDArray[Any]) -> list[float]:
    return [float(square) ** 0.5 for square in (array.astype("float64") ** 2).sum(axis=1)]
