"""Embeddings as WebUIs read them from their folder."""

from pathlib import Path
from typing import Any

from embedding_estimate.files.embedding import read_folder


class Embedding:
    def __init__(self, file: Any, filename: str):
        self.name, self.vectors, self.shorthash, self.filename = file.name, file.tokens, "", filename
        self.vec = next(iter(file.vectors.values())) if len(file.vectors) == 1 else dict(file.vectors)


def described(folder: str) -> dict[str, Embedding]:
    """All embeddings in a folder by name."""
    files, _ = read_folder(Path(folder))
    paths = {path.stem: path for path in Path(folder).rglob("*") if path.suffix in (".safetensors", ".pt")}
    return {name: Embedding(file, str(paths[name])) for name, file in files.items()}


class Names:
    """Finds embeddings by the tokens of their names."""

    def __init__(self) -> None:
        self.word_embeddings: dict[str, Any] = {}
        self.skipped_embeddings: dict[str, Any] = {}  # what does not fit the model that is loaded
        self._tokens: list[tuple[list[int], Any]] = []

    def find_embedding_at_position(self, tokens: list[int], offset: int) -> tuple[Any, int | None]:
        for name, embedding in self._tokens:
            if tokens[offset : offset + len(name)] == name:
                return embedding, len(name)
        return None, None

    def take(self, known: dict[str, Embedding], tokenize: Any, sdxl: bool) -> None:
        """Takes those that fit the model."""
        fitting = {name for name, embedding in known.items() if isinstance(embedding.vec, dict) == sdxl}
        self.word_embeddings = {name: embedding for name, embedding in known.items() if name in fitting}
        self.skipped_embeddings = {name: embedding for name, embedding in known.items() if name not in fitting}
        self._tokens = [(tokenize([name])[0], embedding) for name, embedding in self.word_embeddings.items()]
