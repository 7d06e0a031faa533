"""Embedding files: whole or not there, read without running anything, readable by others."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.files import embedding, provenance
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.files.formats import PROVENANCE, SINGLE
from embedding_estimate.settings import LONGEST_PROMPT

ORIGIN = {
    "version": "0.1.0",
    "settings": {"text": "/(bad:1.4), [a|b] \N{CAT FACE}"},
    "model": {"name": "tiny", "hash": "0123abcd"},
    "fidelity": {"protocol": "v1", "explained": 0.5},
}


def single(tokens: int = 3, width: int = 8, key: str = "clip_l") -> Embedding:
    return Embedding("mine", {key: torch.randn(tokens, width)}, ORIGIN)


def pair(tokens: int = 3) -> Embedding:
    return Embedding("mine", {"clip_l": torch.randn(tokens, 6), "clip_g": torch.randn(tokens, 10)}, ORIGIN)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def same(one: Embedding, other: Embedding) -> bool:
    """Whether the vectors are equal, whatever a single encoder is called."""
    if len(one.vectors) == 1:
        return torch.equal(*(next(iter(e.vectors.values())) for e in (one, other)))
    return one.vectors.keys() == other.vectors.keys() and all(
        torch.equal(one.vectors[key], other.vectors[key]) for key in one.vectors
    )


# The value


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ({}, "no vectors"),
        ({"clip_l": torch.zeros(3)}, "but an embedding is N vectors of floats; choose an embedding file"),
        ({"clip_l": torch.tensor(1.0)}, "but an embedding is N vectors of floats; choose an embedding file"),
        ({"clip_l": torch.zeros(0, 8)}, "0x8"),
        ({"clip_l": torch.zeros(2, 8, dtype=torch.int64)}, "torch.int64"),
        ({"clip_l": torch.zeros(2, 6), "clip_g": torch.zeros(3, 10)}, "clip_l 2, clip_g 3"),
        ({"clip_l": torch.full((1, 8), math.nan)}, "undefined"),
        ({"clip_l": torch.full((1, 8), 1e300, dtype=torch.float64)}, "infinite"),
    ],
)
def test_bad_vectors(vectors: dict[str, Tensor], expected: str) -> None:
    with pytest.raises(EmbeddingError, match=expected):
        Embedding("mine", vectors)


def test_vectors_are_a_copy_without_gradient() -> None:
    live = torch.zeros(2, 8, dtype=torch.float16, requires_grad=True)
    made = Embedding("mine", {"clip_l": live})
    with torch.no_grad():
        live += 1
    kept = made.vectors["clip_l"]
    assert kept.dtype == torch.float32 and not kept.requires_grad and not kept.any()
    assert made.tokens == 2


def test_fit_names_the_only_encoder(tmp_path: Path) -> None:
    saved = single(width=16, key="clip_h")
    embedding.write(saved, tmp_path / "mine.safetensors")
    loaded = embedding.read(tmp_path / "mine.safetensors")
    assert list(loaded.vectors) == [SINGLE]
    fitted = loaded.fit({"clip_h": 16})
    assert torch.equal(fitted.vectors["clip_h"], saved.vectors["clip_h"])
    assert fitted.provenance == ORIGIN
    assert list(pair().fit({"clip_g": 10, "clip_l": 6}).vectors) == ["clip_g", "clip_l"]


def test_fit_says_what_the_file_is_for_and_what_the_model_wants() -> None:
    with pytest.raises(EmbeddingError, match=r"768 wide \(SD1\).* reads vectors 1024 wide \(SD2\)"):
        single(width=768).fit({"clip_h": 1024})
    with pytest.raises(EmbeddingError, match=r"8 wide, .* reads clip_l 6 wide and clip_g 10 wide \(SDXL\)"):
        single().fit({"clip_l": 6, "clip_g": 10})
    with pytest.raises(EmbeddingError, match=r"\(SDXL\), .* reads vectors 6 wide;"):
        pair().fit({"clip_l": 6})


# Round trips


@given(
    width=st.integers(1, 9),
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=6),
    extension=st.sampled_from([".safetensors", ".pt"]),
)
def test_round_trip_is_exact(
    tmp_path_factory: pytest.TempPathFactory, width: int, values: list[float], extension: str
) -> None:
    path = tmp_path_factory.mktemp("round") / f"mine{extension}"
    saved = Embedding("mine", {"clip_l": torch.tensor(values)[:, None].expand(-1, width)}, ORIGIN)
    embedding.write(saved, path)
    loaded = embedding.read(path)
    assert same(saved, loaded)
    assert (loaded.name, loaded.tokens, loaded.provenance) == ("mine", len(values), ORIGIN)


def test_round_trip_of_two_encoders(tmp_path: Path) -> None:
    saved = pair()
    embedding.write(saved, tmp_path / "mine.safetensors")
    assert same(saved, embedding.read(tmp_path / "mine.safetensors"))
    with pytest.raises(EmbeddingError, match=r"SDXL has two; use \.safetensors"):
        embedding.write(saved, tmp_path / "other.pt")
    assert listing(tmp_path) == ["mine.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("extension", [".safetensors", ".pt", ".bin"])
def test_every_float_is_read(tmp_path: Path, dtype: torch.dtype, extension: str) -> None:
    path, tensor = tmp_path / f"mine{extension}", torch.randn(2, 8).to(dtype)
    if extension == ".safetensors":
        safetensors.torch.save_file({"any name": tensor}, path)
    else:
        torch.save({"<any-name>": tensor}, path)
    loaded = embedding.read(path)
    assert torch.equal(loaded.vectors[SINGLE], tensor.float())
    assert loaded.provenance == {}


TENSOR = torch.randn(2, 8)
DEEP = f'{{"settings": {"[" * 900}{"]" * 900}}}'  # no deeper than a parser goes, but than who prints it


@pytest.mark.parametrize(
    "data",
    [
        {"string_to_param": {"*": TENSOR}, "string_to_token": {"*": 265}, "name": "x", "step": 5},
        {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(TENSOR)})},
        {"<concept>": TENSOR},
        {"emb_params": torch.nn.Parameter(TENSOR)},
    ],
)
@pytest.mark.parametrize("extension", [".pt", ".BIN"])
def test_pickles_of_other_tools(tmp_path: Path, data: object, extension: str) -> None:
    path = tmp_path / f"mine{extension}"
    torch.save(data, path)
    assert torch.equal(embedding.read(path).vectors[SINGLE], TENSOR)


def test_pickles_of_other_shapes(tmp_path: Path) -> None:
    torch.save({"word": TENSOR[0]}, tmp_path / "flat.bin")
    assert embedding.read(tmp_path / "flat.bin").tokens == 1
    torch.save({"clip_l": TENSOR, "clip_g": TENSOR}, tmp_path / "xl.pt")
    assert set(embedding.read(tmp_path / "xl.pt").vectors) == {"clip_l", "clip_g"}


# What other tools find in the files


def test_safetensors_hold_nothing_but_the_vectors(tmp_path: Path) -> None:
    for saved, keys in ((single(), {SINGLE}), (pair(), {"clip_l", "clip_g"})):
        path = tmp_path / "mine.safetensors"
        embedding.write(saved, path, overwrite=True)
        tensors = safetensors.torch.load_file(path)
        assert tensors.keys() == keys and all(t.dtype == torch.float32 for t in tensors.values())
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        assert set(header) == {*keys, "__metadata__"}
        assert set(header["__metadata__"]) == {PROVENANCE}
        assert json.loads(header["__metadata__"][PROVENANCE]) == ORIGIN


class StrictUnpickler(pickle.Unpickler):
    """Builds arrays from torch's first file format, and knows no more names than a careful host allows."""

    def __init__(self, file: io.BytesIO, storages: dict[str, str]):
        super().__init__(file)
        self.storages = storages  # key -> kind of storage, filled by what is read

    def persistent_load(self, saved_id: Any) -> str:
        kind, storage, key, device, _size, _view = saved_id
        assert (kind, device) == ("storage", "cpu")
        self.storages[key] = storage
        return str(key)

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): dict,
            ("torch", "FloatStorage"): "FloatStorage",
            ("torch._utils", "_rebuild_tensor_v2"): lambda key, offset, shape, stride, *rest: (key, shape),
        }
        return allowed[module, name]


def test_pt_is_readable_without_torch(tmp_path: Path) -> None:
    saved, path = single(), tmp_path / "mine.pt"
    embedding.write(saved, path)
    file, storages = io.BytesIO(path.read_bytes()), dict[Any, Any]()
    _magic, _protocol, _system, data, keys = (StrictUnpickler(file, storages).load() for _ in range(5))
    assert set(data) == {
        *("string_to_token", "string_to_param", "name", "step", "sd_checkpoint", "sd_checkpoint_name"),
        PROVENANCE,
    }
    assert data["string_to_token"] == {"*": 265}
    assert (data["name"], data["sd_checkpoint"], data["sd_checkpoint_name"]) == ("mine", "0123abcd", "tiny")
    assert json.loads(data[PROVENANCE]) == ORIGIN
    key, shape = data["string_to_param"]["*"]
    assert keys == [key] and storages == {key: "FloatStorage"}
    (count,) = struct.unpack("<Q", file.read(8))
    values = np.frombuffer(file.read(), "<f4")
    assert count == math.prod(shape) == len(values)
    assert np.array_equal(values.reshape(shape), saved.vectors["clip_l"].numpy())


# Provenance


def test_provenance_tells_nothing_of_the_machine(tmp_path: Path) -> None:
    origin = {
        "model": {"name": "/home/someone/models/tiny.ckpt", "hash": ""},
        "files": ["C:\\Users\\someone\\a.pt", r"\\server\share\b.pt", "c.pt"],
        "settings": {"text": "/imagine a cat"},
    }
    for extension in (".safetensors", ".pt"):
        path = tmp_path / f"mine{extension}"
        embedding.write(Embedding("mine", {"clip_l": TENSOR}, origin), path)
        for part in (b"someone", b"share", str(tmp_path).encode()):
            assert part not in path.read_bytes()
        read = embedding.read(path).provenance
        assert read["model"]["name"] == "tiny.ckpt" and read["files"] == ["a.pt", "b.pt", "c.pt"]
        assert read["settings"]["text"] == "/imagine a cat"


def test_undefined_numbers_become_null(tmp_path: Path) -> None:
    origin = {"fidelity": {"explained": math.nan, "worst": -math.inf, "median": 0.5}}
    embedding.write(Embedding("mine", {"clip_l": TENSOR}, origin), tmp_path / "mine.pt")
    read = embedding.read(tmp_path / "mine.pt").provenance
    assert read == {"fidelity": {"explained": None, "worst": None, "median": 0.5}}


def test_provenance_is_bounded(tmp_path: Path) -> None:
    long = Embedding("mine", {"clip_l": TENSOR}, {"settings": {"text": "x" * provenance.MOST}})
    with pytest.raises(EmbeddingError, match="keep the prompt out"):
        embedding.write(long, tmp_path / "mine.safetensors")
    assert listing(tmp_path) == []


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_what_can_be_written_can_be_read(tmp_path: Path, kind: str) -> None:
    """The longest prompts there may be, of characters that take most room: each is escaped, and quotes once more."""
    origin = {"settings": {"text": "\U0001f600" * LONGEST_PROMPT, "templates": '"' * LONGEST_PROMPT}}
    path = tmp_path / f"mine.{kind}"
    embedding.write(Embedding("mine", {"clip_l": TENSOR}, origin), path)
    assert embedding.read(path).provenance == origin


@pytest.mark.slow
@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_prompt_survives(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("origin") / "mine.safetensors"
    embedding.write(Embedding("mine", {"clip_l": TENSOR}, {"settings": value}), path)
    assert embedding.read(path).provenance == {"settings": value}


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", "null", "[" * 100_000, DEEP, "9" * 10_000, "\0"])
def test_foreign_headers_count_as_no_provenance(tmp_path: Path, text: str) -> None:
    safetensors.torch.save_file({SINGLE: TENSOR}, tmp_path / "mine.safetensors", {PROVENANCE: text})
    torch.save({"string_to_param": {"*": TENSOR}, PROVENANCE: text}, tmp_path / "mine.pt")
    torch.save({"string_to_param": {"*": TENSOR}, PROVENANCE: 7}, tmp_path / "other.pt")
    for path in tmp_path.iterdir():
        assert embedding.read(path).provenance == {}


# Folders


def test_a_folder_as_hosts_read_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    embedding.write(single(tokens=1), tmp_path / "b.v2.pt")
    embedding.write(single(tokens=2), tmp_path / "sub" / "a.safetensors")
    embedding.write(single(tokens=3), tmp_path / "sub" / "b.v2.safetensors")
    (tmp_path / "bad.bin").write_bytes(b"no")
    for other in ("a.png", "a.preview.png", "a.json", "readme.txt", "left.tmp"):
        (tmp_path / other).touch()
    found, skipped = embedding.read_folder(tmp_path)
    assert {name: entry.tokens for name, entry in found.items()} == {"a": 2, "b.v2": 1}
    assert [path.name for path, _ in skipped] == ["bad.bin", "b.v2.safetensors"]
    assert "same name" in skipped[1][1]
    assert embedding.read_folder(tmp_path / "nowhere") == ({}, [])
