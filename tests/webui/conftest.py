"""Tests in a real WebUI: run with its own Python and WEBUI_DIR=its folder, a small checkpoint among its models.

The WebUI is started in this process, on the CPU and without its page. Arguments of its own go into WEBUI_ARGS.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = (
    "--skip-prepare-environment --skip-install --skip-torch-cuda-test --skip-python-version-check "
    "--skip-version-check --use-cpu all --no-half --no-download-sd-model"
)


@pytest.fixture(scope="session")
def webui() -> Any:
    """Its `shared` module, with the checkpoint loaded."""
    folder = os.environ.get("WEBUI_DIR")
    if not folder:
        pytest.skip("WEBUI_DIR names no WebUI to test in")
    if not (Path(folder) / "models").is_dir() or "open_clip" not in _importable():
        pytest.skip(f"{folder}: is no WebUI that runs with this Python")
    before, place = sys.argv, Path.cwd()
    sys.argv = ["launch.py", *ARGUMENTS.split(), *os.environ.get("WEBUI_ARGS", "").split()]
    os.chdir(folder)
    sys.path.insert(0, folder)
    try:
        return _started()
    finally:
        sys.argv = before
        os.chdir(place)


def _started() -> Any:
    import launch  # noqa: F401  (reads the arguments)
    import webui

    initialize = getattr(webui, "initialize", None)
    if callable(initialize):  # 1.2
        initialize()
    else:
        from modules import initialize as later

        later.initialize()
    from modules import shared

    for thread in threading.enumerate():  # one of them loads the checkpoint
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(300)
    assert shared.sd_model is not None
    return shared


def _importable() -> set[str]:
    import importlib.util

    return {name for name in ("open_clip",) if importlib.util.find_spec(name)}
