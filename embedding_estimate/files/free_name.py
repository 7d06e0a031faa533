"""Chooses a name for an embedding that was given none."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from embedding_estimate.files import names
from embedding_estimate.files.everyday_words import typed_anyway


def free_name(text: str, folders: Sequence[Path]) -> str:
    """A name made of the text's first words that is not common in prompts and does not collide with files in these
    folders."""
    words = re.findall(r"[^\W\d_]+", unicodedata.normalize("NFC", re.sub(r"<[^>]*>", " ", text)))
    about = [word.lower() for word in words if word not in ("AND", "BREAK")][:3]
    stem = "-".join(about if len(about) > 1 else [*about, "embedding"])
    if typed_anyway(stem):
        stem = f"{stem}-embedding"
    if not about or names.problems(stem):
        stem = "an-embedding"
    first = (
        f"{number}-{stem}" for number in range(2, 10)
    )  # in front, because otherwise the existing name would be the beginning of this one
    beside = [file for folder in folders for file in names.files(folder)]
    clear = (name for name in (stem, *first) if not names.beginning_alike(name, beside))
    return next(clear, f"{secrets.token_hex(3)}-{stem}")
