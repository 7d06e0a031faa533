"""Files that appear whole or not at all, whatever ends the program in between."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from embedding_estimate.errors import EmbeddingError, NameTaken

PREFIX, SUFFIX = "embedding-estimate-", ".tmp"  # hosts take nothing with this ending for an embedding or a picture
ABANDONED = 3600.0  # seconds without a change, after which the program that wrote a temporary file is gone


def temporary_beside(path: Path) -> Path:
    """A new name in the same folder, from which a file can be moved to `path` in one step."""
    return path.with_name(f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")


def write_whole(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Writes a file so that it is there with all of its content or not at all; an old one survives until then.

    A link is replaced, not followed. The folder exists already. Raises `NameTaken` where the path exists and
    `overwrite` is off, and `EmbeddingError` where it cannot be written; nothing is left behind then.
    """
    write_together({path: data}, overwrite=overwrite)


def write_together(
    contents: Mapping[Path, bytes], *, overwrite: bool = True, on_moved: Callable[[Path], None] = lambda path: None
) -> None:
    """`write_whole` for several files: none has its name before all are written, and then all get theirs at once.

    Names are given one after the other, and no file system does that in one step: a program that is killed just then
    leaves some. `on_moved` gets each path that has its new content. Raises what `write_whole` raises.
    """
    temporary = {path: temporary_beside(path) for path in contents}
    path = next(iter(contents))
    try:
        try:
            for path, data in contents.items():
                _write_through(temporary[path], data)
            for path in contents:
                _move(temporary[path], path, overwrite)
                on_moved(path)
        finally:
            for leftover in temporary.values():
                leftover.unlink(missing_ok=True)
        for folder in dict.fromkeys(path.parent for path in contents):
            _sync_folder(folder)
    except OSError as error:
        raise EmbeddingError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or choose another folder"
        ) from error


def _write_through(path: Path, data: bytes) -> None:
    """Writes a new file down to the disk: a power cut must not leave an empty one where a name is given to it."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move(temporary: Path, path: Path, overwrite: bool) -> None:
    """Gives the whole file its name, in one step."""
    if not overwrite:
        try:
            os.link(temporary, path)  # unlike a rename this never replaces a file made in the meantime
            return
        except OSError:  # it exists, or the file system has no hard links
            if os.path.lexists(path):
                raise NameTaken(f"{path.name}: exists already; choose another name or overwrite it") from None
    temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    """Makes the new name last through a power cut, where the system lets folders be synchronised."""
    with suppress(OSError):  # Windows opens no folders, and some file systems synchronise none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_abandoned(folder: Path) -> None:
    """Removes the temporary files in a folder that a killed program has left there."""
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):  # somebody else's, or gone by now
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
