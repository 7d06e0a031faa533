"""Which estimates a program is at work on, as other programs see it: by a lock that ends with the program.

It lies in the folder for temporary files, so that a kill leaves nothing among the user's.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

NO_LOCKS = (OSError, NotImplementedError)  # another user's file, a system without locks; `Timeout` is an OSError too


def lock_of(state: Path) -> FileLock:
    """The lock of an estimate, by the file that its state has or would have. It is not waited for by default."""
    name = hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:32]
    return FileLock(Path(tempfile.gettempdir()) / f"embedding-estimate-{name}.lock", timeout=0)


def at_work(state: Path) -> bool:
    """Whether a program is at work on it, found out by taking its lock for a moment. Where there are no locks nobody
    knows, and none is taken to be."""
    lock = lock_of(state)
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock:
            return False
    except Timeout:
        return True
    except NO_LOCKS:
        return False
