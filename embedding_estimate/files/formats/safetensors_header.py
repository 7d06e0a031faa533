"""The header of a .safetensors file, read and checked before anything is loaded."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import IO

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.files import provenance

MOST_HEADER = 2 * provenance.MOST + 2**20  # bytes; quotes and backslashes of the provenance are escaped once more
MOST_TENSORS = 64  # an embedding has one to four


@dataclass(frozen=True)
class Header:
    """The names of the tensors, and the texts by name."""

    keys: Collection[str]
    texts: dict[str, object]


def header(file: IO[bytes]) -> Header:
    """The header at the beginning of a file.

    Raises `EmbeddingError`, without the file's name, if it cannot be an embedding's. A damaged header raises what
    Python raises for it. The loader checks shapes and places.
    """
    (size,) = struct.unpack("<Q", file.read(8))
    if size > MOST_HEADER:
        raise EmbeddingError(
            f"has a header of {size} bytes, but an embedding's has at most {MOST_HEADER}; choose an embedding file"
        )
    entries = json.loads(file.read(size))
    texts = entries.pop("__metadata__", {})
    if len(entries) > MOST_TENSORS:
        raise EmbeddingError(f"holds {len(entries)} tensors, more than an embedding has; choose an embedding file")
    return Header(entries.keys(), texts)
