"""`load` and `load_into` for Python: embedding files, and embeddings in a pipeline."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedding_estimate.errors import ModelError
from embedding_estimate.files import embedding as files
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.files.names import typed_name
from embedding_estimate.hosts.lending import random_states_kept
from embedding_estimate.hosts.standalone import textual_inversion
from embedding_estimate.hosts.standalone.pipeline import text_encoders
from embedding_estimate.python_api.result import Result
from embedding_estimate.storage import phrases


def load(path: str | Path) -> Embedding:
    """Reads an embedding file of any tool: .safetensors, .pt, .bin or .png. Code that the file may hold is not run.

    Raises:
        EmbeddingError: the file is not there, or holds no embedding.

    Example:
        >>> embedding = load("embeddings/red-disc.safetensors")
        >>> embedding.name, embedding.tokens
        ('red-disc', 4)
    """
    return files.read(Path(path))


def load_into(pipe: Any, embedding: Embedding | Result | str | Path, token: str | None = None) -> str:
    """Puts an embedding into a pipeline of diffusers, so that its prompts can call it. SDXL gets both of its encoders.

    `pipe.unload_textual_inversion()` takes it out again, from each encoder by itself. Several words of one result are
    put in under a name each.

    Args:
        pipe: a pipeline of Stable Diffusion 1, 2 or XL.
        embedding: what `estimate` or `load` returned, or the path of a file.
        token: the word to type in prompts; without one it is the embedding's name.

    Returns:
        What to type in the pipeline's prompts.

    Raises:
        EmbeddingError: the file cannot be read, or the embedding was made for another kind of model.
        NameTaken: the pipeline knows the token already.
        ModelError: the pipeline has no text encoder, or its weights are offloaded.

    Example:
        >>> load_into(pipe, "embeddings/red-disc.safetensors")
        'red-disc'
        >>> pipe("a photo of red-disc").images[0]
    """
    if getattr(pipe, "text_encoder", None) is None or getattr(pipe, "tokenizer", None) is None:
        raise ModelError(f"{type(pipe).__name__}: has no text encoder or no tokenizer; load a pipeline with both")
    if isinstance(embedding, Result):
        embedding = embedding.embedding
    elif not isinstance(embedding, Embedding):
        embedding = load(embedding)
    encoders = text_encoders(pipe)
    widths = {key: part.model.get_input_embeddings().weight.shape[1] for key, part in encoders.items()}
    parts = [part.fit(widths) for part in _words(embedding, embedding.name if token is None else token)]
    with random_states_kept(pipe.text_encoder.device):
        textual_inversion.add_to(encoders, {part.name: part.vectors for part in parts})
    weights = {part.name: phrases.recorded_weight(part.provenance) for part in parts}
    weighed = [typed_name(name, weight) for name, weight in weights.items() if weight != 1]
    if weighed:
        warnings.warn(
            f"made to be typed as {' '.join(weighed)}, and pipelines of diffusers read no weights: it does less here",
            stacklevel=2,
        )
    return " ".join(part.name for part in parts)


def _words(embedding: Embedding, name: str) -> list[Embedding]:
    """The embedding under a name, or each of its words; the file of one word tells of the others and holds itself."""
    words = phrases.recorded_words(embedding.provenance)
    if embedding.tokens == sum(word.tokens for word in words):
        return phrases.parts_of(phrases.renamed(embedding, name))
    return [replace(embedding, name=name)]
