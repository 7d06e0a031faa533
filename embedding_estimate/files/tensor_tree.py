"""Nested lists and mappings of numbers, texts and tensors as one file, which is read without running code.

The file is a .safetensors: the tensors under their paths in the tree, and the tree itself as JSON in the header, where
`{"tensor": path}` stands for a tensor, and `{"empty": shape, "type": name}` for one without numbers, which early
versions of safetensors cannot read. A checksum over both finds damage that the format does not.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

Tree = Mapping[str, Any]  # keys are texts, and numbers become texts; tuples become lists

TREE, CHECKSUM = "tree", "crc32"
MOST_HEADER = 100_000_000  # bytes, the format's own limit
REFUSALS = (safetensors.SafetensorError, struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading raises for a damaged file."""


def packed(tree: Tree) -> bytes:
    """The content of a file that holds the tree."""
    tensors: dict[str, Tensor] = {}

    def plain(value: Any, path: str) -> Any:
        if isinstance(value, Tensor) and not value.numel():
            return {"empty": list(value.shape), "type": str(value.dtype).removeprefix("torch.")}
        if isinstance(value, Tensor):
            tensors[path] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": path}
        if isinstance(value, Mapping):
            return {str(key): plain(entry, f"{path}/{key}") for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [plain(entry, f"{path}/{place}") for place, entry in enumerate(value)]
        return value

    text = json.dumps(plain(tree, ""))
    return safetensors.torch.save(tensors, metadata={TREE: text, CHECKSUM: _checksum(text, tensors)})


def unpacked(data: bytes) -> dict[str, Any]:
    """The tree in a file's content, its tensors on the CPU. Raises one of `REFUSALS` if it is damaged."""
    texts, tensors = _texts(data), safetensors.torch.load(data)
    if texts[CHECKSUM] != _checksum(texts[TREE], tensors):
        raise ValueError("the checksum differs")

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {"tensor"}:
                return tensors[value["tensor"]]
            if value.keys() == {"empty", "type"}:
                return torch.empty(value["empty"], dtype=getattr(torch, value["type"]))
            return {key: whole(entry) for key, entry in value.items()}
        return [whole(entry) for entry in value] if isinstance(value, list) else value

    tree: dict[str, Any] = whole(json.loads(texts[TREE]))
    return tree


def outline(path: Path) -> dict[str, Any]:
    """The tree in a file without its tensors, of which nothing is read. Raises `OSError` or one of `REFUSALS`."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        texts = _texts(struct.pack("<Q", size) + file.read(min(size, MOST_HEADER)))
    tree: dict[str, Any] = json.loads(texts[TREE])
    return tree


def _texts(data: bytes) -> dict[str, str]:
    """The metadata in the header that a file begins with."""
    (size,) = struct.unpack("<Q", data[:8])
    texts: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return texts


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    checksum = zlib.crc32(text.encode())
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"
