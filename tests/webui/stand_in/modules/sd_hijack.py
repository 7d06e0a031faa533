from pathlib import Path
from typing import Any

from embedding_estimate.files.embedding import read_folder
from modules import shared


class EmbeddingDatabase:
    def __init__(self) -> None:
        self.word_embeddings: dict[str, Any] = {}
        self.skipped_embeddings: dict[str, Any] = {}  # what does not fit the model that is loaded
        self._tokens: list[tuple[list[int], Any]] = []

    def find_embedding_at_position(self, tokens: list[int], offset: int) -> tuple[Any, int | None]:
        for name, embedding in self._tokens:
            if tokens[offset : offset + len(name)] == name:
                return embedding, len(name)
        return None, None

    def load_textual_inversion_embeddings(self, force_reload: bool = False) -> None:
        folder = Path(shared.cmd_opts.embeddings_dir)
        found, _ = read_folder(folder)
        paths = {path.stem: path for path in folder.rglob("*") if path.suffix in (".safetensors", ".pt")}
        engine = shared.sd_model.cond_stage_model
        known = {name: Embedding(file, str(paths[name])) for name, file in found.items()}
        fitting = {name for name, file in found.items() if (len(file.vectors) == 2) == shared.sd_model.is_sdxl}
        self.word_embeddings = {name: embedding for name, embedding in known.items() if name in fitting}
        self.skipped_embeddings = {name: embedding for name, embedding in known.items() if name not in fitting}
        self._tokens = [(engine.tokenize([name])[0], each) for name, each in self.word_embeddings.items()]


class Embedding:
    def __init__(self, file: Any, filename: str):
        self.name, self.vectors, self.shorthash, self.filename = file.name, file.tokens, "", filename
        self.vec = next(iter(file.vectors.values())) if len(file.vectors) == 1 else dict(file.vectors)


class ModelHijack:
    def __init__(self) -> None:
        self.embedding_db = EmbeddingDatabase()
        self.fixes: Any = None
        self.comments: list[str] = []
        self.extra_generation_params: dict[str, str] = {}

    def get_prompt_lengths(self, text: str) -> tuple[Any, Any]:
        if shared.sd_model is None:
            return "-", "-"
        count = shared.sd_model.cond_stage_model.tokenize_line(text)[1]
        return count, count


model_hijack = ModelHijack()
