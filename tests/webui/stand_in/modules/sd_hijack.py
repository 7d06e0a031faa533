from typing import Any

from embedding_files import Names, described

from modules import shared


class EmbeddingDatabase(Names):
    def load_textual_inversion_embeddings(self, force_reload: bool = False) -> None:
        engine = shared.sd_model.cond_stage_model
        self.take(described(shared.cmd_opts.embeddings_dir), engine.tokenize, shared.sd_model.is_sdxl)


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
