"""Embedding files that are damaged or hostile, and disks that fail: one line, and everything as it was."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedding_estimate.errors import EmbeddingError, NameTaken
from embedding_estimate.files import embedding, formats
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.files.formats import SINGLE, pickled

TENSOR = torch.randn(2, 8)


def single(tokens: int = 3) -> Embedding:
    return Embedding("mine", {"clip_l": torch.randn(tokens, 8)}, {"prompt": "(bad:1.4)"})


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Damaged and hostile files


def refused(path: Path) -> str:
    """The line that reading the file is refused with."""
    with pytest.raises(EmbeddingError) as caught:
        embedding.read(path)
    line = str(caught.value)
    assert line.startswith(path.name.removesuffix(path.suffix)) and "\n" not in line and len(line) < 200
    return line


@pytest.mark.parametrize("extension", [".safetensors", ".pt"])
def test_truncated_at_every_length(tmp_path: Path, extension: str) -> None:
    whole, cut = tmp_path / f"whole{extension}", tmp_path / f"cut{extension}"
    embedding.write(Embedding("whole", {"clip_l": torch.randn(1, 4)}), whole)
    data = whole.read_bytes()
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        refused(cut)


@given(
    st.sampled_from([".safetensors", ".pt", ".bin"]),
    st.binary(max_size=40) | st.tuples(st.integers(0, 400), st.integers(0, 255)),
)
def test_damage_is_one_line_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, extension: str, damage: bytes | tuple[int, int]
) -> None:
    path = tmp_path_factory.mktemp("damage") / f"mine{extension}"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        torch.manual_seed(0)
        embedding.write(single(), path.with_suffix(".pt" if extension == ".bin" else extension))
        data = bytearray(path.with_suffix(".pt" if extension == ".bin" else extension).read_bytes())
        data[damage[0] % len(data)] = damage[1]
        path.write_bytes(data)
    try:
        embedding.read(path)
    except EmbeddingError as error:
        assert "\n" not in str(error)


class Bomb:
    def __init__(self, victim: Path):
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("extension", [".pt", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(
    tmp_path: Path, extension: str, zipped: bool, recwarn: pytest.WarningsRecorder
) -> None:
    path, victim = tmp_path / f"mine{extension}", tmp_path / "victim"
    data = {"string_to_param": {"*": TENSOR}, "name": Bomb(victim)}
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    assert "which may be code and was not read; get another copy" in refused(path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Bomb(victim), protocol))
        refused(path)
    assert not recwarn.list
    assert not victim.exists()


def test_a_zip_that_unpacks_to_more_than_itself(tmp_path: Path) -> None:
    plain = io.BytesIO()
    torch.save({"word": torch.zeros(1000, 768)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "mine.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    assert "unpacks to" in refused(tmp_path / "mine.pt")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"word": torch.zeros(1, 1).expand(10**6, 10**6)}, "claims more numbers"),
        ({"word": torch.zeros(2, 8).to_sparse()}, "_rebuild_sparse_tensor, which may be code and was not read"),
        ({"word": torch.empty(2, 2, device="meta")}, "which may be code and was not read; get another copy"),
        ({"word": torch.zeros(2, 8, dtype=torch.int32)}, "torch.int32"),
        ({"word": torch.full((2, 8), math.inf)}, "infinite"),
        ({"word": torch.zeros(0, 8)}, "0x8"),
        ({"word": "text"}, "holds word, which is not a tensor"),
        ({"a": TENSOR, "b": TENSOR}, "2 tensors (a, b)"),
        ({"string_to_param": {"a": TENSOR, "b": TENSOR}}, "2 words"),
        ({"string_to_param": {}}, "0 words"),
        ({"string_to_param": 7}, "damaged"),
        ({}, "0 tensors"),
        ([TENSOR], "holds no named vectors"),
        (TENSOR, "holds no named vectors"),
        (None, "holds no named vectors"),
    ],
)
def test_pickles_that_are_no_embeddings(tmp_path: Path, data: object, expected: str) -> None:
    torch.save(data, tmp_path / "mine.pt")
    assert expected in refused(tmp_path / "mine.pt")


@pytest.mark.parametrize("claim", [2**63, 10**8 + 1, 10**6, 3])
def test_a_header_that_claims_any_length(tmp_path: Path, claim: int) -> None:
    (tmp_path / "mine.safetensors").write_bytes(struct.pack("<Q", claim) + b"{}" + b" " * 64)
    refused(tmp_path / "mine.safetensors")


def test_a_header_that_claims_any_shape(tmp_path: Path) -> None:
    header = json.dumps({SINGLE: {"dtype": "F32", "shape": [10**9, 768], "data_offsets": [0, 16]}}).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(16)
    (tmp_path / "mine.safetensors").write_bytes(data)
    refused(tmp_path / "mine.safetensors")


def test_not_even_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").mkdir()
    (tmp_path / "huge.pt").touch()
    os.truncate(tmp_path / "huge.pt", pickled.MOST + 1)
    (tmp_path / "huge.safetensors").touch()
    os.truncate(tmp_path / "huge.safetensors", formats.MOST + 1)
    (tmp_path / "dead.pt").symlink_to(tmp_path / "nothing")
    assert refused(tmp_path / "mine.pt") == "mine.pt: is a folder; choose an embedding file"
    assert refused(tmp_path) == f"{tmp_path.name}: is a folder; choose an embedding file"
    assert "larger than 17 MiB" in refused(tmp_path / "huge.pt")
    assert "larger than 64 MiB" in refused(tmp_path / "huge.safetensors")
    assert "cannot be read" in refused(tmp_path / "dead.pt")
    assert "no such file" in refused(tmp_path / "nothing.safetensors")
    (tmp_path / "picture.webp").touch()
    assert "not one of .safetensors .pt .bin .png" in refused(tmp_path / "picture.webp")


# Writing


def test_an_existing_file_is_kept_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(NameTaken, match=r"mine\.safetensors: exists"):
        embedding.write(single(), path)
    assert path.read_bytes() == b"old" and listing(tmp_path) == [path.name]
    embedding.write(single(), path, overwrite=True)
    assert embedding.read(path).tokens == 3 and listing(tmp_path) == [path.name]


def test_links_are_neither_followed_nor_taken_for_free(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"old")
    path, dangling = tmp_path / "mine.pt", tmp_path / "other.pt"
    path.symlink_to(elsewhere)
    dangling.symlink_to(tmp_path / "nothing")
    for link in (path, dangling):
        with pytest.raises(NameTaken):
            embedding.write(single(), link)
        embedding.write(single(), link, overwrite=True)
        assert not link.is_symlink() and embedding.read(link).tokens == 3
    assert elsewhere.read_bytes() == b"old" and not (tmp_path / "nothing").exists()


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    embedding.write(single(), tmp_path / "mine.pt")
    with pytest.raises(NameTaken):
        embedding.write(single(tokens=5), tmp_path / "mine.pt")
    assert embedding.read(tmp_path / "mine.pt").tokens == 3 and listing(tmp_path) == ["mine.pt"]


class FullDisk(io.FileIO):
    def write(self, data: Any) -> int:
        super().write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("broken", ["write", "fsync", "rename", "open"])
@pytest.mark.parametrize("extension", [".safetensors", ".pt"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, extension: str
) -> None:
    path = tmp_path / f"mine{extension}"
    embedding.write(single(), path)
    old = path.read_bytes()
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        if broken == "write":
            patch.setattr(Path, "open", lambda self, mode: FullDisk(self, mode.replace("b", "")))
        elif broken == "fsync":
            patch.setattr(os, "fsync", failing(full))
        elif broken == "rename":
            patch.setattr(Path, "replace", failing(full))
        else:
            patch.setattr(Path, "open", failing(PermissionError(errno.EACCES, "Permission denied")))
        with pytest.raises(EmbeddingError, match=r"cannot be written \((No space|Permission)") as caught:
            embedding.write(single(tokens=5), path, overwrite=True)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == old and listing(tmp_path) == [path.name]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        embedding.write(single(), path, overwrite=True)
    assert path.read_bytes() == b"old" and listing(tmp_path) == [path.name]


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.pt").mkdir()
    for path in (tmp_path / "file" / "mine.pt", tmp_path / "nowhere" / "mine.pt", tmp_path / "taken.pt"):
        with pytest.raises(EmbeddingError, match="cannot be written"):
            embedding.write(single(), path, overwrite=True)
    assert listing(tmp_path) == ["file", "taken.pt"]


def test_only_embeddings_are_written(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=r"written as \.safetensors or \.pt"):
        embedding.write(single(), tmp_path / "mine.png")
    with pytest.raises(EmbeddingError, match="no file format holds vectors for a, b"):
        embedding.write(Embedding("mine", {"a": TENSOR, "b": TENSOR}), tmp_path / "mine.safetensors")
    assert listing(tmp_path) == []
