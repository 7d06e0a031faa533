"""Writes files that appear whole or not at all, whatever ends the program in between."""

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
    """A new path in the same folder, from which a file can be moved to `path` in one step."""
    return path.with_name(f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")


def write_whole(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Writes a file that appears with all of its content or not at all. An old file survives until then.

    A link is replaced, not followed. The folder must exist. Raises `NameTaken` if the path exists and `overwrite` is
    off, and `EmbeddingError` if it cannot be written. Nothing is left behind then.
    """
    write_together({path: data}, overwrite=overwrite)


def write_together(
    contents: Mapping[Path, bytes], *, overwrite: bool = True, on_moved: Callable[[Path], None] = lambda path: None
) -> None:
    """`write_whole` for several files. First all are written under temporary names, then each gets its own name.

    No file system gives several names in one step, so a program that is killed in that moment leaves only some of the
    files. `on_moved` gets each path that has its new content. Raises what `write_whole` raises.
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
    """Writes a new file down to the disk, so that a power cut cannot leave an empty file under the final name."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move(temporary: Path, path: Path, overwrite: bool) -> None:
    """Gives the complete file its final name, in one step."""
    if not overwrite:
        try:
            os.link(temporary, path)  # unlike a rename this never replaces a file made in the meantime
            return
        except OSError:  # it exists, or the file system has no hard links
            if os.path.lexists(path):
                raise NameTaken(f"{path.name}: exists already; choose another name or overwrite it") from None
    temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    """Makes the new name survive a power cut, if the system can synchronise folders."""
    with suppress(OSError):  # Windows cannot open folders, and some file systems cannot synchronise them
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_abandoned(folder: Path) -> None:
    """Removes temporary files that killed programs have left in a folder."""
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):  # somebody else's, or gone by now
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
