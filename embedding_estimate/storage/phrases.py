"""Files of several words that share the vectors of one embedding: what each file records about the others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.files import listing
from embedding_estimate.files.embedding import Embedding, read
from embedding_estimate.files.listing import Listing
from embedding_estimate.files.names import of_words, phrase, problems
from embedding_estimate.settings.parameters import finite
from embedding_estimate.teaching.words import Word, spans

if TYPE_CHECKING:
    from torch import Tensor

HASH = "vectors_hash"  # in a provenance: of all vectors, those of the other words as well


def record_of(name: str, words: Sequence[Word], vectors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The provenance entries about the words that share an embedding's vectors (N, width) by encoder."""
    names = of_words(name, len(words))
    return {
        "phrase": phrase(names, [word.weight for word in words]),
        "words": [
            {"name": own, "tokens": word.tokens, "typed_weight": word.weight}
            for own, word in zip(names, words, strict=True)
        ],
        HASH: _hash(vectors),
    }


def _hash(vectors: Mapping[str, Tensor]) -> str:
    """A hash of all vectors, by which the files of the words recognise each other."""
    digest = hashlib.sha256()
    for key in sorted(vectors):
        digest.update(vectors[key].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class RecordedWord(NamedTuple):
    """One word, as a file records it."""

    name: str
    tokens: int
    weight: float

    @classmethod
    def of(cls, entry: object) -> RecordedWord | None:
        """The word that an entry of a provenance's `words` describes; None if the entry describes none."""
        values = entry if isinstance(entry, Mapping) else {}
        name, tokens, weight = (values.get(key) for key in ("name", "tokens", "typed_weight"))
        if not isinstance(name, str) or problems(name) or type(tokens) is not int or tokens < 1:
            return None
        if not _is_weight(weight):
            return None
        return cls(name, tokens, float(weight))


def recorded_words(provenance: Mapping[str, Any]) -> list[RecordedWord]:
    """All words that this file belongs to, in the order in which they are typed; empty for a file that stands alone."""
    entries = provenance.get("words")
    words = [RecordedWord.of(entry) for entry in entries] if isinstance(entries, list) else []
    known = [word for word in words if word]
    return known if len(known) == len(words) > 1 else []


def recorded_weight(provenance: Mapping[str, Any]) -> float:
    """The weight that a file says its name is typed with; 1 where it says none that can be one."""
    weight = provenance.get("typed_weight")
    return float(weight) if _is_weight(weight) else 1.0


def _is_weight(value: object) -> TypeGuard[float]:
    """Whether it can be typed as a weight. A prompt's weights have no bounds, and a word has its prompt's."""
    return isinstance(value, int | float) and not isinstance(value, bool) and finite(value)


def recorded_phrase(embedding: Embedding | Listing, weight: float) -> str:
    """What to type for an embedding: all of its words with their weights, or its name with this weight."""
    return phrase_of(recorded_words(embedding.provenance) or [RecordedWord(embedding.name, embedding.tokens, weight)])


def phrase_of(words: Sequence[RecordedWord]) -> str:
    """What to type for these words."""
    return phrase([word.name for word in words], [word.weight for word in words])


def parts_of(embedding: Embedding) -> list[Embedding]:
    """The embeddings to save: one for each word, with its typed weight, or the embedding itself if it is one word."""
    words = recorded_words(embedding.provenance)
    return [
        Embedding(
            word.name,
            {key: value[first:last] for key, value in embedding.vectors.items()},
            {**embedding.provenance, "typed_weight": word.weight},
        )
        for word, (first, last) in zip(words, spans([word.tokens for word in words]), strict=True)
    ] or [embedding]


def renamed(embedding: Embedding, name: str) -> Embedding:
    """The same embedding under another name. Its settings and the names of its words change too."""
    provenance = dict(embedding.provenance)
    if isinstance(provenance.get("settings"), Mapping):
        provenance["settings"] = {**provenance["settings"], "name": name}
    if words := recorded_words(provenance):
        spelled = of_words(name, len(words))
        provenance["phrase"] = phrase(spelled, [word.weight for word in words])
        provenance["words"] = [
            {"name": own, "tokens": word.tokens, "typed_weight": word.weight}
            for own, word in zip(spelled, words, strict=True)
        ]
    return replace(embedding, name=name, provenance=provenance)


def whole(embedding: Embedding, file: Path) -> tuple[Embedding, list[Word]]:
    """The vectors of all words that share the embedding, read from the files beside `file`, and those words. An
    embedding of one word comes back as it is, with no words.

    Raises `EmbeddingError` if a file is missing or comes from another estimate.
    """
    words = recorded_words(embedding.provenance)
    if not words:
        return embedding, []
    if lines := lacks(embedding, file):
        raise EmbeddingError(
            f"{file.name}: is one word of {phrase_of(words)}, but {lines[0]}, or give --typed-weight to measure this "
            "word alone"
        )
    import torch

    parts = [read(_beside(file, word)) for word in words]
    vectors = {key: torch.cat([part.vectors[key] for part in parts]) for key in embedding.vectors}
    shares = spans([word.tokens for word in words])
    return replace(embedding, vectors=vectors), [
        Word(word.weight, tuple(range(*share))) for word, share in zip(words, shares, strict=True)
    ]


def lacks(embedding: Embedding | Listing, file: Path) -> list[str]:
    """Why the words of an embedding cannot be typed together: one line for each word whose file is missing, cannot be
    read or comes from another estimate. A kill of the program while it saved them can leave such files."""
    words, lines = recorded_words(embedding.provenance), []
    for word in words:
        path = _beside(file, word)
        if not path.exists():
            lines.append(f"{path.name} is not in the same folder; put it there")
            continue
        try:
            other = listing.read(path)
        except EmbeddingError as error:
            lines.append(str(error))
            continue
        together = other.provenance.get(HASH) == embedding.provenance.get(HASH)
        if not together or recorded_words(other.provenance) != words or other.tokens != word.tokens:
            lines.append(f"{path.name} comes from another estimate; estimate them again")
    return lines


def _beside(file: Path, word: RecordedWord) -> Path:
    return file.with_name(f"{word.name}{file.suffix}")
