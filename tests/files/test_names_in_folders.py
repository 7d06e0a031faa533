"""Names and the folders they must be free in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from spying import spy

from embedding_estimate.errors import EmbeddingError, NameTaken, SettingsError
from embedding_estimate.files import names


def put(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")


@pytest.mark.parametrize(
    "file",
    ["mine.safetensors", "MINE.pt", "Mine.png", "mine.preview.png", "mine", "deep/er/mine.bin", "mine.JSON"],
)
def test_taken_in_any_case_and_with_any_extension(tmp_path: Path, file: str) -> None:
    put(tmp_path, file)
    assert names.taken("mine", tmp_path) == tmp_path / file


def test_not_taken(tmp_path: Path) -> None:
    put(tmp_path, "mine.v2.safetensors", "mine2.pt", "not mine.pt", "mine/other.pt")
    assert names.taken("mine", tmp_path) is None
    assert names.taken("mine.v2", tmp_path) == tmp_path / "mine.v2.safetensors"
    assert names.taken("mine", tmp_path / "nowhere") is None


def test_a_decomposed_file_name_is_the_same_name(tmp_path: Path) -> None:
    put(tmp_path, "cafe\u0301.pt")
    assert names.taken("Café", tmp_path) is not None


def test_folders_are_followed_through_links_once(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "mine.pt")
    folder = tmp_path / "embeddings"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    assert list(names.files(folder)) == [folder / "linked" / "mine.pt"]
    assert names.taken("mine", folder) == folder / "linked" / "mine.pt"


def test_target_of_a_new_name(tmp_path: Path) -> None:
    put(tmp_path, "other.pt")
    assert names.target("mine", tmp_path) == tmp_path / "mine.safetensors"
    assert names.target("mine", tmp_path, extension=".pt", overwrite=True) == tmp_path / "mine.pt"


def test_target_refuses_a_taken_name(tmp_path: Path) -> None:
    put(tmp_path, "sub/MINE.preview.png")
    with pytest.raises(NameTaken, match=r"sub.MINE\.preview\.png has this name"):
        names.target("mine", tmp_path)


def test_target_overwrites_the_file_where_it_lies_beside_its_pictures(tmp_path: Path) -> None:
    put(tmp_path, "sub/mine.safetensors", "sub/mine.preview.png", "sub/mine.png", "sub/mine.json")
    path = names.target("mine", tmp_path, overwrite=True)
    assert path == tmp_path / "sub" / "mine.safetensors"


@pytest.mark.parametrize("rival", ["mine.pt", "sub/mine.safetensors", "Mine.bin"])
def test_target_never_leaves_two_embeddings_of_one_name(tmp_path: Path, rival: str) -> None:
    put(tmp_path, "mine.safetensors", rival)
    with pytest.raises(NameTaken, match="would still have the name"):
        names.target("mine", tmp_path, overwrite=True)


def test_target_refuses_another_format_of_the_name(tmp_path: Path) -> None:
    put(tmp_path, "mine.safetensors")
    with pytest.raises(NameTaken, match=r"mine\.safetensors would still have the name"):
        names.target("mine", tmp_path, extension=".pt", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_target_refuses_a_folder_in_the_files_place(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "mine.safetensors").mkdir()
    with pytest.raises(NameTaken, match=r"mine\.safetensors exists and is not a file; choose another name"):
        names.target("mine", tmp_path, overwrite=overwrite)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(NameTaken, match="is not a file"):
        names.target("pipe", tmp_path, overwrite=overwrite)


def test_files_whose_names_are_no_text(tmp_path: Path) -> None:
    put(tmp_path, os.fsdecode(b"sub\xe9/mine.pt"), os.fsdecode(b"caf\xe9.pt"))
    with pytest.raises(NameTaken) as caught:
        names.target("mine", tmp_path)
    assert r"sub\udce9/mine.pt has this name" in str(caught.value)
    assert names.target("other", tmp_path) == tmp_path / "other.safetensors"


def test_a_folder_is_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *(f"{number}.pt" for number in range(50)))
    walks, keys = spy(monkeypatch, os, "walk"), spy(monkeypatch, names, "_key")
    for overwrite in (False, True):
        walks.clear()
        keys.clear()
        names.target("mine", tmp_path, overwrite=overwrite)
        assert len(walks) == 1 and len(keys) <= 2 * 50


def test_target_checks_name_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="folders"):
        names.target("../mine", tmp_path)
    put(tmp_path, "file")
    for folder in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(EmbeddingError, match="is not a folder"):
            names.target("mine", folder)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(EmbeddingError, match="is not writable"):
        names.target("mine", tmp_path)
