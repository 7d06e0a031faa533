"""The record in a file of where its vectors come from, as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from embedding_estimate.errors import EmbeddingError

MOST = 2**23  # bytes of JSON, in which settings of the longest texts have room, each character escaped
LEVELS = 64  # of lists and objects in it, one in another


def written(name: str, provenance: Mapping[str, Any]) -> str:
    """The provenance of the embedding `name` as strict JSON in ASCII. Numbers that are not finite become null.

    Raises `EmbeddingError` if it is too long for a header.
    """
    finite = json.loads(json.dumps(dict(provenance)), parse_constant=lambda _: None)
    text = json.dumps(_without_paths(finite), allow_nan=False)
    if len(text) > MOST:
        raise EmbeddingError(
            f"{name}: settings and prompt take {len(text)} bytes, but a header holds {MOST}; keep the prompt out of "
            "the file"
        )
    return text


def read(text: object) -> dict[str, Any]:
    """The provenance of a file. Anything but this program's own JSON object counts as none."""
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and _within(value, LEVELS) else {}


def _without_paths(value: Any) -> Any:
    """The value with only the last part of every path, because files are passed on. Settings stay as the user typed
    them."""
    if isinstance(value, dict):
        return {key: entry if key == "settings" else _without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_paths(entry) for entry in value]
    if isinstance(value, str):
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            if path.is_absolute():
                return path.name
    return value


def _within(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested no deeper than this."""
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not entries or (levels > 0 and all(_within(entry, levels - 1) for entry in entries))
