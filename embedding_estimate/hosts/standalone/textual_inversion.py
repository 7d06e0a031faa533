"""Embeddings in a diffusers pipeline: rows of its text encoders, under names that its tokenizers know.

The vectors of an embedding are the tokens `name`, `name_1`, `name_2` and so on. If a prompt has the first of them,
diffusers adds the others after it (`maybe_convert_prompt`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from embedding_estimate.errors import EmbeddingError, ModelError, NameTaken, quoted
from embedding_estimate.hosts.standalone.loading import TextEncoder
from embedding_estimate.model.host import Vectors

NUMBERED = re.compile(r"(.+)_\d+", re.DOTALL)  # a further vector of an embedding


def held_by(encoders: Mapping[str, TextEncoder]) -> dict[str, Vectors]:
    """The embeddings that a pipeline's prompts can use: name -> encoder key -> vectors (N, width).

    An embedding that some of the encoders lack is left out.
    """
    return {
        name: {key: _rows(part, tokens) for key, part in encoders.items()}
        for name, tokens in _names([part.tokenizer for part in encoders.values()]).items()
    }


def add_to(encoders: Mapping[str, TextEncoder], embeddings: Mapping[str, Vectors]) -> None:
    """Adds embeddings, by name, with their vectors (N, width) by encoder key to all encoders and tokenizers.

    Prompts must spell a name exactly like this, capitals included. The precision and the device of the encoders do
    not change. Raises EmbeddingError for a name that cannot be typed, NameTaken for a name that the tokenizers know
    already, and ModelError for an encoder whose weights are offloaded. Nothing has been changed then.
    """
    tokens = {name: _tokens(name, len(next(iter(vectors.values())))) for name, vectors in embeddings.items()}
    for name in embeddings:
        _check(encoders, name, tokens[name])
    for name, vectors in embeddings.items():
        for key, part in encoders.items():
            _add(part, tokens[name], vectors[key])


def _check(encoders: Mapping[str, TextEncoder], name: str, tokens: Sequence[str]) -> None:
    """Raises what `add_to` raises."""
    if not name.strip() or name != name.strip():
        raise EmbeddingError(
            f"token={quoted(name)}: a prompt calls an embedding by its token; give a token without spaces"
        )
    for part in encoders.values():
        _check_free(name, tokens, part.tokenizer)
        if part.model.get_input_embeddings().weight.device.type == "meta":
            raise ModelError("the text encoder's weights are offloaded; call remove_all_hooks() on the pipeline first")


def _tokens(name: str, number: int) -> list[str]:
    return [name, *(f"{name}_{further}" for further in range(1, number))]


def _names(tokenizers: Sequence[Any]) -> dict[str, list[str]]:
    """The embeddings that all of the tokenizers have, by name, each with its tokens."""
    known = [_added(tokenizer) for tokenizer in tokenizers]
    everywhere = [token for token in known[0] if all(token in others for others in known)]
    tokens = {}
    for name in everywhere:
        if _first(name, everywhere) == name:
            number = 1
            while f"{name}_{number}" in everywhere:
                number += 1
            tokens[name] = _tokens(name, number)
    return tokens


def _added(tokenizer: Any) -> list[str]:
    """The tokens that were added to a tokenizer, without its own special tokens."""
    return [token for token in tokenizer.get_added_vocab() if token not in tokenizer.all_special_tokens]


def _first(token: str, added: Iterable[str]) -> str:
    """The token of an embedding's first vector, if this token may belong to a later vector; otherwise the
    token itself."""
    numbered = NUMBERED.fullmatch(token)
    return numbered[1] if numbered is not None and numbered[1] in added else token


def _rows(part: TextEncoder, tokens: list[str]) -> Tensor:
    table: Tensor = part.model.get_input_embeddings().weight.detach()  # (V, width)
    return table[part.tokenizer.convert_tokens_to_ids(tokens)]  # (N, width)


def _check_free(name: str, tokens: Sequence[str], tokenizer: Any) -> None:
    """Raises NameTaken if one of the tokens already has another meaning in prompts, or would give another token one."""
    vocabulary, added = tokenizer.get_vocab(), _added(tokenizer)
    if f"{name.lower()}</w>" in vocabulary:
        raise NameTaken(f"{name}: an ordinary word, which the embedding would replace; choose a made-up token")
    if known := next((token for token in tokens if token in vocabulary), ""):
        raise NameTaken(f"{known}: the tokenizer has this token already; choose another token")
    if f"{name}_1" in added or _first(name, added) != name:
        raise NameTaken(f"{name}: diffusers reads it as a part of another embedding; choose another token")
    for other in added:
        if _first(other, added) == other and (other in name or name in other):
            raise NameTaken(
                f"{name}: diffusers would confuse it with {other}, because one contains the other; choose another token"
            )


@torch.no_grad()
def _add(part: TextEncoder, tokens: Sequence[str], vectors: Tensor) -> None:
    from transformers import AddedToken

    # as they are typed: diffusers finds no other spelling in the prompt
    part.tokenizer.add_tokens([AddedToken(token, normalized=False, single_word=True) for token in tokens])
    size = max(len(part.tokenizer), len(part.model.get_input_embeddings().weight))
    part.model.resize_token_embeddings(size, mean_resizing=False)
    table = part.model.get_input_embeddings().weight  # (V, width)
    table[part.tokenizer.convert_tokens_to_ids(tokens)] = vectors.to(table)
