"""Embeddings and their files.

A file holds nothing but vectors under the names that every tool reads, and says where they come from:

    SD1, SD2   .safetensors   `emb_params` (N, width)
    SDXL       .safetensors   `clip_l` (N, 768) and `clip_g` (N, 1280)
    SD1, SD2   .pt            AUTOMATIC1111's layout: `string_to_param` {"*": (N, width)} and plain entries

The provenance is one JSON object, as text under the key `embedding_estimate`: in the metadata of the
safetensors header, or among the plain entries of a `.pt`, where other tools pass over it.
"""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import ParameterDict

from embedding_estimate import names, provenance
from embedding_estimate.errors import EmbeddingError
from embedding_estimate.whole_file import write_whole

SINGLE = "emb_params"  # the key of vectors for the only text encoder of a model, whatever that is called
PAIR = ("clip_l", "clip_g")  # SDXL
PROVENANCE = "embedding_estimate"

MAX_FILE = 64 * 2**20  # bytes; thousands of SDXL vectors. A checkpoint taken for an embedding is far above


@dataclass(frozen=True, eq=False)
class Embedding:
    """N vectors per text encoder under one name. They are copied to the CPU, detached and in fp32.

    `provenance` holds JSON values: `version`, `settings` (prompts may be kept out), `model` with `name`, `hash` and
    `family`, `clip_skip`, `emphasis`, `typed_weight`, `networks` where the host added some, `steps`, `stopped`, and
    `fidelity` with its `protocol`. It is empty for a file of another tool.

    Raises EmbeddingError unless every encoder has the same number of finite vectors, at least one.
    """

    name: str
    vectors: Mapping[str, Tensor]  # encoder key, or SINGLE -> (N, width)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, tensor in self.vectors.items():
            if not tensor.is_floating_point() or tensor.ndim != 2 or 0 in tensor.shape:
                shape = "x".join(map(str, tensor.shape)) or "single"
                found = f"{key} is a {shape} {tensor.dtype}"
                raise EmbeddingError(f"{self.name}: {found}, not N vectors of floats; choose an embedding")
        vectors = {
            key: tensor.detach().to("cpu", torch.float32, copy=True).contiguous()  # (N, width)
            for key, tensor in self.vectors.items()
        }
        if len({len(tensor) for tensor in vectors.values()}) != 1:
            counts = ", ".join(f"{key} {len(tensor)}" for key, tensor in vectors.items())
            raise EmbeddingError(f"{self.name}: {counts or 'no'} vectors; give each encoder as many")
        if not all(bool(tensor.isfinite().all()) for tensor in vectors.values()):
            raise EmbeddingError(f"{self.name}: holds infinite or undefined numbers; make it again")
        object.__setattr__(self, "vectors", vectors)

    @property
    def tokens(self) -> int:
        """N, the tokens that the embedding takes up in a prompt."""
        return len(next(iter(self.vectors.values())))

    def fit(self, widths: Mapping[str, int]) -> Embedding:
        """The same embedding under a model's encoder keys; `widths` is encoder key -> width, as in ModelInfo.

        Raises EmbeddingError where it was made for another kind of model.
        """
        vectors = self.vectors
        if len(vectors) == len(widths) == 1:  # SD1 and SD2 have one encoder, and files do not name it
            vectors = dict(zip(widths, vectors.values(), strict=True))
        own = {key: tensor.shape[1] for key, tensor in vectors.items()}
        if own != dict(widths):
            raise EmbeddingError(
                f"{self.name}: holds {_kind(own)}, and the loaded model reads {_kind(widths)}; "
                "use an embedding made for this kind of model"
            )
        return replace(self, vectors={key: vectors[key] for key in widths})


def read(path: Path) -> Embedding:
    """An embedding from a .safetensors, .pt or .bin file, without running code that the file may hold.

    The name is the file's without its extension. One tensor comes under the key SINGLE; see `Embedding.fit`.
    Reads what AUTOMATIC1111 reads: `string_to_param`, a single tensor of any name, or `clip_l` and `clip_g`.

    Raises EmbeddingError, with one line, whatever the file holds.
    """
    extension = path.suffix.lower()
    if not os.path.lexists(path):
        raise EmbeddingError(f"{path.name}: no such file; give an embedding's")
    if extension not in names.EXTENSIONS:
        raise EmbeddingError(f"{path.name}: not one of {' '.join(names.EXTENSIONS)}; choose an embedding")
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise EmbeddingError(f"{path.name}: is no file; choose an embedding")
        if size > MAX_FILE:
            raise EmbeddingError(f"{path.name}: is larger than {MAX_FILE // 2**20} MiB; choose an embedding")
        tensors, told = (_read_safetensors if extension == ".safetensors" else _read_pickle)(path)
        return Embedding(path.stem, _vectors(path.name, tensors, size), provenance.read(told))
    except EmbeddingError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise EmbeddingError(f"{path.name}: cannot be read ({reason}); choose another file") from error
    except Exception as error:  # a damaged or hostile file can make the loaders raise anything
        raise EmbeddingError(
            f"{path.name}: is damaged or holds more than vectors, and was not read; get another copy"
        ) from error


def read_folder(folder: Path) -> tuple[dict[str, Embedding], list[tuple[Path, str]]]:
    """The embeddings of a folder tree by name, and the files passed over with the reason for each.

    Files that are no embeddings by their extension, pictures among them, are not mentioned.
    """
    found: dict[str, Embedding] = {}
    skipped: list[tuple[Path, str]] = []
    for path in names.files(folder):
        if path.suffix.lower() not in names.EXTENSIONS:
            continue
        try:
            embedding = read(path)
            if embedding.name in found:
                raise EmbeddingError(f"{path.name}: another file has the same name; remove one of the two")
            found[embedding.name] = embedding
        except EmbeddingError as error:
            skipped.append((path, str(error)))
    return found, skipped


def write(embedding: Embedding, path: Path, *, overwrite: bool = False) -> None:
    """Saves as .safetensors or .pt, by the path's extension; the folder exists already.

    The file appears whole or not at all, and an old one survives until then. A link is replaced, not
    followed. `names.target` gives a path that is free in the whole folder tree.

    Raises NameTaken where the path exists and `overwrite` is off, and EmbeddingError where it cannot be
    written; nothing is left behind then.
    """
    encoders = {".safetensors": _safetensors_bytes, ".pt": _pickle_bytes}
    encode = encoders.get(path.suffix.lower())
    if encode is None:
        raise EmbeddingError(f"{path.name}: embeddings are written as {' or '.join(encoders)}; choose one")
    write_whole(path, encode(embedding), overwrite=overwrite)


def _safetensors_bytes(embedding: Embedding) -> bytes:
    tensors = dict(embedding.vectors)
    if len(tensors) == 1:
        tensors = {SINGLE: next(iter(tensors.values()))}
    elif set(tensors) != set(PAIR):
        raise EmbeddingError(f"{embedding.name}: no file format holds vectors for {', '.join(tensors)}")
    return safetensors.torch.save(
        tensors, metadata={PROVENANCE: provenance.written(embedding.name, embedding.provenance)}
    )


def _pickle_bytes(embedding: Embedding) -> bytes:
    if len(embedding.vectors) != 1:
        raise EmbeddingError(f"{embedding.name}: a .pt holds one encoder, SDXL has two; use .safetensors")
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


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], object]:
    with safetensors.safe_open(str(path), framework="pt") as file:
        keys = file.keys()
        tensors = {key: file.get_tensor(key) for key in keys}
        return tensors, (file.metadata() or {}).get(PROVENANCE)


def _read_pickle(path: Path) -> tuple[Mapping[str, Any], object]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:  # torch does not compress
            raise EmbeddingError(f"{path.name}: unpacks to {unpacked} bytes, more than it has; not read")
    # The first embeddings ever hold a ParameterDict, which torch >= 2.5 lets through by name.
    allow: Any = getattr(torch.serialization, "safe_globals", nullcontext)
    with allow([ParameterDict]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # of what is refused then
        data = torch.load(str(path), map_location="cpu", weights_only=True)
    if not isinstance(data, dict):
        raise EmbeddingError(f"{path.name}: holds a {type(data).__name__} and no vectors; choose an embedding")
    if "string_to_param" not in data:
        return data, None
    tensors = data["string_to_param"]
    if isinstance(tensors, ParameterDict):
        tensors = vars(tensors)["_parameters"]
    if len(tensors) != 1:
        raise EmbeddingError(f"{path.name}: holds vectors for {len(tensors)} words; an embedding is one word")
    return {SINGLE: next(iter(tensors.values()))}, data.get(PROVENANCE)


def _vectors(file: str, tensors: Mapping[str, Any], size: int) -> dict[str, Tensor]:
    """The tensors of a file of `size` bytes under the keys of Embedding."""
    if len(tensors) == 1:
        tensors = {SINGLE: next(iter(tensors.values()))}
    elif set(tensors) != set(PAIR):
        raise EmbeddingError(f"{file}: holds {len(tensors)} tensors, not one or {' and '.join(PAIR)}")
    for tensor in tensors.values():
        # A view can claim any shape on top of a few bytes, and would be written out in full.
        if tensor.layout is not torch.strided or tensor.numel() * tensor.element_size() > size:
            raise EmbeddingError(f"{file}: claims more numbers than the file holds and was not read")
    return {key: tensor[None] if tensor.ndim == 1 else tensor for key, tensor in tensors.items()}


def _kind(widths: Mapping[str, int]) -> str:
    """The vectors that a model of these widths reads, and the model's family where they tell it."""
    if len(widths) > 1:
        return " and ".join(f"{key} {width} wide" for key, width in widths.items()) + " (SDXL)"
    width = next(iter(widths.values()))
    return f"vectors {width} wide" + {768: " (SD1)", 1024: " (SD2)"}.get(width, "")
