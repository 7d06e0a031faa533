from typing import Any

from embedding_files import described

from modules import shared


class EmbeddingDatabase:
    """For the cards and the API: it knows names, and no model."""

    def __init__(self) -> None:
        self.word_embeddings: dict[str, Any] = {}

    def load_textual_inversion_embeddings(self, force_reload: bool = False, sync_with_sd_model: bool = True) -> None:
        if sync_with_sd_model:
            raise AttributeError("'NoneType' object has no attribute 'encode_embedding_init_text'")
        assert force_reload
        self.word_embeddings = described(shared.cmd_opts.embeddings_dir)


embedding_db = EmbeddingDatabase()
