"""Embeddings, and writing them to files. `formats` reads the files.

A written file holds only vectors, under the names that every tool reads, and a record of where they come from:

    SD1, SD2   .safetensors   `emb_params` (N, width)
    SDXL       .safetensors   `clip_l` (N, 768) and `clip_g` (N, 1280)
    SD1, SD2   .pt            AUTOMATIC1111's layout: `string_to_param` {"*": (N, width)} and plain entries

The record, called provenance, is one JSON object. It is text under the key `embedding_estimate`, in the metadata of the
safetensors header or among the plain entries of a `.pt`. Other tools ignore it there.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding_estimate.errors import EmbeddingError, shortened
from embedding_estimate.files import formats, names, provenance, whole_file
from embedding_estimate.files.formats import PAIR, PROVENANCE, SINGLE, Contents

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Embedding:
    """N vectors per text encoder under one name. The vectors are copied to the CPU, detached, in fp32.

    `provenance` holds JSON values: `version`, `settings` (prompts may be left out), `model` with `name`, `hash` and
    `family`, `clip_skip`, `emphasis`, `typed_weight`, `networks` if the host added some, `steps`, `stopped`, `fidelity`
    with its `protocol`, and for several words `phrase`, `words` and `vectors_hash`. It is empty for a file of another
    tool.

    Raises EmbeddingError unless every encoder has the same number of finite vectors, at least one.
    """

    name: str
    vectors: Mapping[str, Tensor]  # encoder key, or SINGLE -> (N, width)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        for key, tensor in self.vectors.items():
            if not tensor.is_floating_point() or tensor.ndim != 2 or 0 in tensor.shape:
                shape = shortened("x".join(map(str, tensor.shape))) or "single"
                description = f"{key} is a {shape} {tensor.dtype}"
                raise EmbeddingError(
                    f"{self.name}: {description}, but an embedding is N vectors of floats; choose an embedding file"
                )
        vectors = {
            key: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()  # (N, width)
            for key, tensor in self.vectors.items()
        }
        if len({len(tensor) for tensor in vectors.values()}) != 1:
            counts = ", ".join(f"{key} {len(tensor)}" for key, tensor in vectors.items())
            raise EmbeddingError(f"{self.name}: {counts or 'no'} vectors; each encoder needs the same number of them")
        if not all(bool(tensor.isfinite().all()) for tensor in vectors.values()):
            raise EmbeddingError(f"{self.name}: holds infinite or undefined numbers; get another copy or make it again")
        object.__setattr__(self, "vectors", vectors)

    @property
    def tokens(self) -> int:
        """N, the number of tokens that the embedding occupies in a prompt."""
        return len(next(iter(self.vectors.values())))

    def fit(self, widths: Mapping[str, int]) -> Embedding:
        """The same embedding under a model's encoder keys. `widths` is encoder key -> width, as in ModelInfo.

        Raises EmbeddingError if it was made for another kind of model.
        """
        vectors = self.vectors
        if len(vectors) == len(widths) == 1 and PAIR[1] not in vectors:
            # SD1 and SD2 have one encoder, and files do not name it
            vectors = dict(zip(widths, vectors.values(), strict=True))
        own = {key: tensor.shape[1] for key, tensor in vectors.items()}
        if own != dict(widths):
            raise EmbeddingError(
                f"{self.name}: holds {_held(own)}, and the loaded model reads {_kind(widths)}; "
                "use an embedding made for this kind of model"
            )
        return replace(self, vectors={key: vectors[key] for key in widths})


def read(path: Path) -> Embedding:
    """An embedding from a .safetensors, .pt, .bin or .png file. Code in the file is never run.

    The name is the file's name without its extension, or the name that a picture holds. A single tensor gets the key
    SINGLE, or keeps its own key if that is one of PAIR; see `Embedding.fit`. Reads what AUTOMATIC1111 reads, by the
    rules in `formats`.

    Raises EmbeddingError, with one line, for any file that cannot be read.
    """
    return of_contents(formats.contents(path), path)


def of_contents(contents: Contents, path: Path) -> Embedding:
    """The embedding that a file holds. Raises EmbeddingError as `Embedding` does."""
    import torch

    vectors = {key: torch.tensor(array) for key, array in contents.vectors.items()}
    return Embedding(name_in(contents, path), vectors, provenance.read(contents.provenance))


def name_in(contents: Contents, path: Path) -> str:
    """The name of the embedding in a file: the file's, or the one that a picture holds."""
    own = contents.name if path.suffix.lower() == formats.PICTURE else None
    return own if isinstance(own, str) and not names.problems(own) else path.stem


def read_folder(folder: Path) -> tuple[dict[str, Embedding], list[tuple[Path, str]]]:
    """The embeddings of a folder tree by name, and the skipped files, each with the reason.

    Files with other extensions are not mentioned, nor are pictures without an embedding, such as those on cards.
    """
    embeddings: dict[str, Embedding] = {}
    skipped: list[tuple[Path, str]] = []

    def add(path: Path) -> None:
        try:
            if path.stem.endswith(".preview"):
                raise EmbeddingError(f"{path.name}: holds an embedding, but WebUIs skip .preview files; rename it")
            embedding = read(path)
            if embedding.name in embeddings:
                raise EmbeddingError(f"{path.name}: another file has the same name; remove one of the two")
            embeddings[embedding.name] = embedding
        except EmbeddingError as error:
            skipped.append((path, str(error)))

    pictures = []
    stems = set()
    for path in names.files(folder):
        extension = path.suffix.lower()
        if extension in names.EXTENSIONS:
            stems.add(path.stem)
            add(path)
        elif extension == formats.PICTURE:
            pictures.append(path)
    for path in pictures:
        stem = path.stem.removesuffix(".preview")
        if formats.pictured_in(path, pixels=stem == path.stem and stem not in stems):  # a card's picture holds nothing
            add(path)
    return embeddings, skipped


def write(embedding: Embedding, path: Path, *, overwrite: bool = False) -> None:
    """Saves as .safetensors or .pt, by the path's extension. The folder must exist.

    The file appears whole or not at all, and an old one survives until then. A link is replaced, not followed.
    `names.target` gives a path that is free in the whole folder tree.

    Raises NameTaken if the path exists and `overwrite` is off, and EmbeddingError if it cannot be written. Nothing is
    left behind then.
    """
    write_together({path: embedding}, overwrite=overwrite)


def write_together(
    embeddings: Mapping[Path, Embedding],
    *,
    overwrite: bool = False,
    on_moved: Callable[[Path], None] = lambda path: None,
) -> None:
    """`write` for several files, which get their names only after all are written; see `whole_file.write_together`."""
    contents = {path: _bytes(embedding, path) for path, embedding in embeddings.items()}
    whole_file.write_together(contents, overwrite=overwrite, on_moved=on_moved)


def _bytes(embedding: Embedding, path: Path) -> bytes:
    encoders = {".safetensors": _safetensors_bytes, ".pt": _pickle_bytes}
    encode = encoders.get(path.suffix.lower())
    if encode is None:
        raise EmbeddingError(f"{path.name}: embeddings are written as {' or '.join(encoders)}; choose one")
    return encode(embedding)


def _safetensors_bytes(embedding: Embedding) -> bytes:
    import safetensors.torch

    tensors = dict(embedding.vectors)
    if len(tensors) == 1 and PAIR[1] not in tensors:
        tensors = {SINGLE: next(iter(tensors.values()))}
    elif not set(tensors) <= set(PAIR):
        raise EmbeddingError(f"{embedding.name}: no file format holds vectors for {', '.join(tensors)}")
    return safetensors.torch.save(
        tensors, metadata={PROVENANCE: provenance.written(embedding.name, embedding.provenance)}
    )


def _pickle_bytes(embedding: Embedding) -> bytes:
    import torch

    if len(embedding.vectors) != 1:
        raise EmbeddingError(f"{embedding.name}: a .pt holds one encoder, SDXL has two; use .safetensors")
    if PAIR[1] in embedding.vectors:
        raise EmbeddingError(f"{embedding.name}: a .pt cannot say that its vectors are for {PAIR[1]}; use .safetensors")
    text = provenance.written(embedding.name, embedding.provenance)
    model = json.loads(text).get("model")
    checkpoint = model if isinstance(model, dict) else {}
    data = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": next(iter(embedding.vectors.values()))},
        "name": embedding.name,
        "step": None,
        "sd_checkpoint": checkpoint.get("hash"),
        "sd_checkpoint_name": checkpoint.get("name"),
        PROVENANCE: text,
    }
    buffer = io.BytesIO()
    # AUTOMATIC1111 checks the names inside a zip and refuses the ones that newer torch versions have added.
    torch.save(data, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _held(widths: Mapping[str, int]) -> str:
    """What vectors an embedding holds, for a message. The vectors of one of SDXL's encoders go by its name."""
    alone = [key for key in PAIR if set(widths) == {key}]
    return f"{alone[0]} alone, {_kind(widths)}" if alone else _kind(widths)


def _kind(widths: Mapping[str, int]) -> str:
    """What vectors a model of these widths reads, for a message, with the family if the widths show it."""
    if len(widths) > 1:
        return " and ".join(f"{key} {width} wide" for key, width in widths.items()) + " (SDXL)"
    width = next(iter(widths.values()))
    return f"vectors {width} wide" + {768: " (SD1)", 1024: " (SD2)"}.get(width, "")
