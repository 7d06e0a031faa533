"""What embedding files of all tools hold. Code in a file is never run.

    SD1, SD2   .safetensors   one tensor of any name; here `emb_params` (N, width)
    SDXL       .safetensors   `clip_l` (N, 768) and `clip_g` (N, 1280), among others (OneTrainer, SD3)
    SD1, SD2   .pt, .bin      AUTOMATIC1111's layout: `string_to_param` {"*": (N, width)} and plain entries
    all        .pt, .bin      the tensors of a .safetensors in a dict
    SD1, SD2   .png           AUTOMATIC1111's layout inside a picture, see `pictured`

Before anything is loaded, the work that a file can cause is bounded.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding_estimate.errors import EmbeddingError, shortened
from embedding_estimate.files.formats import numbers, pickled, pictured, safetensors_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

SINGLE = "emb_params"  # the key of vectors for the only text encoder of a model, whatever that is called
PAIR = ("clip_l", "clip_g")  # SDXL
PROVENANCE = "embedding_estimate"
PICTURE = ".png"

MOST = 64 * 2**20  # bytes; thousands of SDXL vectors. A checkpoint taken for an embedding is far above

NUMBERS = {  # by their names in .safetensors
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "BOOL": "bool", "U8": "uint8"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """Vectors (N, width) under SINGLE, under both keys of PAIR or under one of them, and what the file records about
    them."""

    vectors: Mapping[str, NDArray[Any]]
    provenance: object = None  # under the key PROVENANCE
    name: object = None  # that is in the file: AUTOMATIC1111 takes a picture's, and otherwise the file's own


def contents(path: Path) -> Contents:
    """What the file holds. Raises `EmbeddingError`, with one line, if it is not an embedding."""
    extension = path.suffix.lower()
    if not os.path.lexists(path):
        raise EmbeddingError(f"{path.name}: no such file; give the path of an embedding file")
    if path.is_dir():
        raise EmbeddingError(f"{path.name}: is a folder; choose an embedding file")
    if extension not in LIMITS:
        raise EmbeddingError(f"{path.name}: is not one of {' '.join(LIMITS)}; choose an embedding file")
    try:
        return _contents(path, extension)
    except EmbeddingError as error:
        raise EmbeddingError(f"{path.name}: {error}") from error
    except Exception as error:  # damaged and hostile files raise exceptions of every kind
        if isinstance(error, OSError) and error.strerror:  # the system's, not Pillow's
            raise EmbeddingError(f"{path.name}: cannot be read ({error.strerror}); choose another file") from error
        logger.debug("%s cannot be read", path, exc_info=True)
        raise EmbeddingError(f"{path.name}: is damaged or is not an embedding; get another copy") from error


def pictured_in(path: Path, *, pixels: bool) -> bool:
    """Whether a PNG holds an embedding, valid or not, in its text or, with `pixels`, also in its pixels, which takes
    longer."""
    try:
        return pictured.text_of(path) is not None or (pixels and pictured.pixels_of(path) is not None)
    except EmbeddingError:
        return True
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error):  # no picture at all, as Pillow says it
        return False


def _contents(path: Path, extension: str) -> Contents:
    size = path.stat().st_size
    if not path.is_file():
        raise EmbeddingError("is not a file; choose an embedding file")
    with path.open("rb") as file:
        kind = _kind(file.read(len(pickled.FIRST_LAYOUT))) or extension
    if kind == ".pt" and extension == ".bin":
        kind = extension
    most = LIMITS[kind]
    if size > most:
        raise EmbeddingError(
            f"is larger than {most // 2**20} MiB, too large for an embedding; choose an embedding file"
        )
    held = READERS[kind](path)
    if kind != extension:
        raise EmbeddingError(f"is a {kind} file by its content; rename it to {path.stem}{kind}")
    return held


def _kind(beginning: bytes) -> str:
    """The extension that belongs to a file's first bytes; empty if they do not show it."""
    if beginning.startswith((pickled.ZIP, pickled.FIRST_LAYOUT)):
        return ".pt"
    if beginning.startswith(pictured.SIGNATURE):
        return PICTURE
    return ".safetensors" if beginning[8:9] == b"{" else ""


def _safetensors(path: Path) -> Contents:
    import safetensors

    with path.open("rb") as file:
        header = safetensors_header.header(file)
        keys = _chosen(header.keys)
        file.seek(0)
        deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
        tensors = dict(deserialize(file.read()))

    def array(name: str) -> NDArray[Any]:
        tensor = tensors[name]
        return _rows(numbers.array(tensor["data"], NUMBERS[tensor["dtype"]]).reshape(tensor["shape"]))

    return Contents({key: array(name) for key, name in keys.items()}, header.texts.get(PROVENANCE))


def _pickle(path: Path) -> Contents:
    saved = pickled.saved(path.read_bytes())
    return _of_entries(saved.value, saved.array)


def _picture(path: Path) -> Contents:
    text = pictured.text_of(path)
    data = pictured.decoded(text) if text is not None else pictured.pixels_of(path)
    if data is None:
        raise EmbeddingError("is a picture without an embedding in it; choose an embedding file")
    return _of_entries(pictured.parsed(data), pictured.array)


# by extension, in the order in which messages name them
READERS: Mapping[str, Callable[[Path], Contents]] = {
    ".safetensors": _safetensors,
    ".pt": _pickle,
    ".bin": _pickle,
    PICTURE: _picture,
}
LIMITS = {".safetensors": MOST, ".pt": pickled.MOST, ".bin": pickled.MOST, PICTURE: MOST}


def _of_entries(entries: Any, array: Callable[[Any], NDArray[Any] | None]) -> Contents:
    """The vectors in these entries. `array` gives the numbers of an entry that is a tensor, or None."""
    if not isinstance(entries, dict):
        raise EmbeddingError("holds no named vectors; choose an embedding file")
    if "string_to_param" not in entries:
        keys = _chosen(entries.keys())
        return Contents({key: _vectors(name, array(entries[name])) for key, name in keys.items()})
    words = entries["string_to_param"]
    if isinstance(words, pickled.Call):
        words = words.state["_parameters"]
    if len(words) != 1:
        raise EmbeddingError(f"holds vectors for {len(words)} words, but an embedding is one word; choose another file")
    ((word, value),) = words.items()
    return Contents({SINGLE: _vectors(word, array(value))}, entries.get(PROVENANCE), entries.get("name"))


def _chosen(keys: Iterable[Any]) -> dict[str, Any]:
    """Which of a file's keys to read: both of SDXL's, as WebUIs do, or the only one. The result is our key -> the
    file's."""
    names = list(keys)
    if set(PAIR) <= set(names):
        return {key: key for key in PAIR}
    if len(names) == 1:
        return {names[0] if names[0] in PAIR else SINGLE: names[0]}
    listed = ", ".join([*(shortened(str(key), 20) for key in names[:3]), "..."][: max(len(names), 1)])
    raise EmbeddingError(
        f"holds {len(names)} tensors ({listed}), but an embedding holds one, or {' and '.join(PAIR)}; choose an "
        "embedding file"
    )


def _vectors(name: Any, array: NDArray[Any] | None) -> NDArray[Any]:
    if array is None:
        raise EmbeddingError(f"holds {shortened(str(name))}, which is not a tensor; choose an embedding file")
    return _rows(array)


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    return array[None] if array.ndim == 1 else array
