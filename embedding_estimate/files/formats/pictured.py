"""Reads embeddings inside pictures, as AUTOMATIC1111 makes them.

The embedding is JSON, in which a tensor is {"TORCHTENSOR": nested lists}. A PNG holds it twice: as base64 in the text
chunk `sd-ti-embedding`, and compressed by zlib in its pixels, where it survives sites that remove texts:

    the low halves of the bytes | a black column | the picture | a black column | the high halves of the bytes

Each half is the lower four bits of one channel, row by row, XOR those of a fixed sequence of numbers (`_halves`).
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from embedding_estimate.errors import EmbeddingError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = b"sd-ti-embedding\0"
MOST_JSON = 4 * 2**20  # bytes; 75 vectors of SD2 take 1.7 million
MOST_PIXELS = 8 * 2**20  # of a picture that is looked into
ZLIB_BEST = b"\x78\xda"  # how the data in the pixels begins


def text_of(path: Path) -> bytes | None:
    """The base64 JSON in a PNG's text chunk; None if it has none. Reads no pixels.

    Raises `EmbeddingError`, without the file's name, if it is longer than any embedding.
    """
    with path.open("rb") as file:
        for kind, size in _chunks(file):
            if kind != b"tEXt" or file.read(len(KEYWORD)) != KEYWORD:
                continue
            if size > len(KEYWORD) + MOST_JSON * 4 / 3:
                raise EmbeddingError("holds a longer text than any embedding; choose an embedding file")
            return file.read(size - len(KEYWORD))
    return None


def decoded(text: bytes) -> bytes:
    """The JSON of the base64 text that `text_of` gives."""
    return base64.b64decode(text)


def pixels_of(path: Path) -> bytes | None:
    """The JSON in a PNG's pixels; None if they hold none.

    Raises `EmbeddingError`, without the file's name, if it is longer than any embedding.
    """
    from PIL import Image

    with path.open("rb") as file:
        width, height = struct.unpack(">16xII", file.read(24))
    if width * height > MOST_PIXELS:
        return None
    with Image.open(path, formats=["PNG"]) as picture:
        pixels: NDArray[np.uint8] = np.asarray(picture.convert("RGB"))  # (h, w, 3)
    rows, columns = np.nonzero(pixels.min(axis=2))
    if not len(rows):
        return None
    lit = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    low = np.bitwise_and(lit, np.uint8(0x0F))
    black = np.flatnonzero(low.max(axis=(0, 2)) == 0)
    if len(black) < 2:
        return None
    left, right = _halves(low[:, : black[0]]), _halves(low[:, black[-1] + 1 :])
    if left.size != right.size:
        return None
    packed = np.bitwise_or(np.left_shift(right, np.uint8(4)), left).tobytes()
    return _unpacked(packed) if packed.startswith(ZLIB_BEST) else None


def parsed(text: bytes) -> Any:
    """The embedding's entries. Numbers are read as floats, because a whole number of a million digits takes long to
    read."""
    return json.loads(text, parse_int=float)


def array(value: Any) -> NDArray[np.float32] | None:
    """The numbers of the tensor that an entry describes; None if it is something else."""
    if not isinstance(value, dict) or "TORCHTENSOR" not in value:
        return None

    numbers = np.array(value["TORCHTENSOR"])
    if numbers.dtype.kind != "f":
        raise ValueError("something else than numbers")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        return numbers.astype(np.float32)


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Kind and size of each chunk of a PNG. The file is then at the chunk's content."""
    if file.read(len(SIGNATURE)) != SIGNATURE:
        return
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        following = file.tell() + size + 4
        yield kind, size
        file.seek(following)


def _halves(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The lower four bits of a block (h, w, 3) without the sequence, row by row.

    The sequence is s mod 255 with s = (1664525 s + 1013904223) mod 2^32, starting at 0. Unsigned integers wrap like
    that by themselves.
    """
    factors = np.full(block.size, 1664525, np.uint32)
    factors[:1] = 1
    sums = np.cumsum(np.cumprod(factors, dtype=np.uint32), dtype=np.uint32)
    numbers = (sums * np.uint32(1013904223) % np.uint32(255)).astype(np.uint8)
    halves: NDArray[np.uint8] = np.bitwise_xor(block.ravel(), np.bitwise_and(numbers, np.uint8(0x0F)))
    return halves


def _unpacked(packed: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(packed, MOST_JSON)
    if unpacking.unconsumed_tail:
        raise EmbeddingError("holds a longer text than any embedding; choose an embedding file")
    return text
