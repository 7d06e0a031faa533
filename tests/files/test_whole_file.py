"""Files that are there whole or not at all, and what killed programs leave."""

import os
import stat
import time
from pathlib import Path

import pytest

from embedding_estimate.errors import EmbeddingError, NameTaken
from embedding_estimate.files.whole_file import ABANDONED, remove_abandoned, temporary_beside, write_whole
from embedding_estimate.storage import saving


def test_a_file_is_replaced_or_not(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    with pytest.raises(NameTaken, match=r"a\.json: exists"):
        write_whole(path, b"third", overwrite=False)
    assert path.read_bytes() == b"second" and list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is moved only to what was synchronised, and then the folder is."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synchronise(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def move(path: Path, target: Path) -> Path:
        done.append("move")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synchronise)
    monkeypatch.setattr(Path, "replace", move)
    write_whole(tmp_path / "a.png", b"picture")
    assert done == ["file", "move", "folder"]


def test_what_killed_programs_leave_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, new, other = temporary_beside(tmp_path / "a"), temporary_beside(tmp_path / "a"), tmp_path / "theirs.tmp"
    for path in (old, new, other):
        path.write_bytes(b"half")
        age = ABANDONED - 60 if path == new else ABANDONED + 60
        os.utime(path, (time.time() - age,) * 2)
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, other])


def test_each_job_removes_them(tmp_path: Path) -> None:
    left = temporary_beside(tmp_path / "a")
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    with saving.made(tmp_path):
        assert not left.exists()


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match="cannot be written"):
        write_whole(tmp_path / "gone" / "a.json", b"")
