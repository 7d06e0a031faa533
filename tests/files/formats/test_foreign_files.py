"""Files of other tools, by the WebUIs' own rules."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from spying import spy

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.files import embedding, formats
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.files.formats import SINGLE, safetensors_header

L, G, T5 = torch.randn(2, 6), torch.randn(2, 10), torch.randn(2, 12)


def refused(path: Path) -> str:
    with pytest.raises(EmbeddingError) as caught:
        embedding.read(path)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 200
    return line


def save(tensors: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("extension", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize("others", [{}, {"clip_l_out": L + 1, "clip_g_out": G + 1}, {"t5": T5}])
def test_both_encoders_of_sdxl_among_others(tmp_path: Path, extension: str, others: dict[str, Any]) -> None:
    read = embedding.read(save({**others, "clip_l": L, "clip_g": G}, tmp_path / f"mine{extension}"))
    assert list(read.vectors) == ["clip_l", "clip_g"]
    assert torch.equal(read.vectors["clip_l"], L) and torch.equal(read.vectors["clip_g"], G)


@pytest.mark.parametrize("extension", [".safetensors", ".pt"])
@pytest.mark.parametrize("key", ["clip_l", "clip_g"])
def test_one_encoder_alone_is_called_by_its_name(tmp_path: Path, extension: str, key: str) -> None:
    read = embedding.read(save({key: torch.ones(2, 10)}, tmp_path / f"mine{extension}"))
    assert list(read.vectors) == [key]
    with pytest.raises(EmbeddingError, match=f"holds {key} alone, vectors 10 wide, and .* and clip_g 10 wide"):
        read.fit({"clip_l": 10, "clip_g": 10})


def test_half_of_sdxl_fits_no_model_of_one_encoder(tmp_path: Path) -> None:
    read = embedding.read(save({"clip_g": G}, tmp_path / "mine.safetensors"))
    with pytest.raises(EmbeddingError, match="holds clip_g alone"):
        read.fit({"clip_h": 10})
    embedding.write(read, tmp_path / "again.safetensors")
    assert list(embedding.read(tmp_path / "again.safetensors").vectors) == ["clip_g"]
    with pytest.raises(EmbeddingError, match="cannot say that its vectors are for clip_g"):
        embedding.write(read, tmp_path / "again.pt")
    alone = embedding.read(save({"clip_l": L}, tmp_path / "l.safetensors"))
    assert torch.equal(alone.fit({"clip_h": 6}).vectors["clip_h"], L)


@pytest.mark.parametrize("extension", [".safetensors", ".pt"])
def test_a_refused_file_names_its_keys_and_a_way_out(tmp_path: Path, extension: str) -> None:
    tensors = {"t5": T5, "clip_l": L}
    line = refused(save(tensors, tmp_path / f"mine{extension}"))
    assert all(
        part in line
        for part in ("2 tensors (", "t5", "clip_l", "but an embedding holds one, or clip_l and clip_g; choose")
    )
    line = refused(save({f"\x1b{n}{'x' * 90}": L.clone() for n in range(9)}, tmp_path / f"mine{extension}"))
    assert r"9 tensors (\x1b0xx" in line and "..." in line and "\x1b" not in line


@pytest.mark.parametrize(
    ("written", "named"), [(".pt", ".safetensors"), (".safetensors", ".pt"), (".safetensors", ".bin")]
)
def test_the_wrong_extension_is_told_as_that(tmp_path: Path, written: str, named: str) -> None:
    save({"word": L}, tmp_path / f"mine{written}").rename(tmp_path / f"mine{named}")
    assert f"is a {written} file by its content; rename it to mine{written}" in refused(tmp_path / f"mine{named}")


def test_the_wrong_extension_of_the_first_layout(tmp_path: Path) -> None:
    embedding.write(Embedding("mine", {"clip_l": L}), tmp_path / "mine.pt")
    (tmp_path / "mine.pt").rename(tmp_path / "mine.png")
    assert "rename it to mine.pt" in refused(tmp_path / "mine.png")


def test_what_is_damaged_is_not_renamed(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"PK\3\4" + b"x" * 50)
    assert "damaged" in refused(tmp_path / "mine.safetensors")


def with_header(path: Path, header: bytes) -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_many_tensors_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    monkeypatch.setattr(safetensors, "deserialize", lambda data: pytest.fail("loads it"))
    few = json.dumps({f"t{n}": empty for n in range(1000)}).encode()
    assert "holds 1000 tensors, more than" in refused(with_header(tmp_path / "few.safetensors", few))
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("parses it"))
    many = b"{" + b" " * safetensors_header.MOST_HEADER + b"}"
    assert "has a header of 17825794 bytes, but an embedding's has at most 17825792" in refused(
        with_header(tmp_path / "many.safetensors", many)
    )


@pytest.mark.parametrize("header", [b"[]", b"{", b'{"a": 7}', b'{"__metadata__": 7}', b"[" * 10_000, b'{"a": {}}'])
def test_headers_of_something_else(tmp_path: Path, header: bytes) -> None:
    refused(with_header(tmp_path / "mine.safetensors", header))


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    read = embedding.read(save({"word": L}, tmp_path / "mine.safetensors").rename(path))
    assert torch.equal(read.vectors[SINGLE], L)
    path.write_bytes(b"no")
    assert refused(path).startswith(r"caf\udce9.safetensors: is damaged")


def test_a_folder_is_walked_once_and_each_file_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        save({"word": L}, tmp_path / f"{number}.safetensors")
    walks, reads = spy(monkeypatch, os, "walk"), spy(monkeypatch, formats, "contents")
    found, skipped = embedding.read_folder(tmp_path)
    assert len(found) == 20 and not skipped
    assert len(walks) == 1 and len(reads) == len(set(reads)) == 20
