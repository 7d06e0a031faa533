"""The core runs inside programs that bring their own libraries: it imports none of theirs, and nothing early."""

import subprocess
import sys
from pathlib import Path

import pytest

import embedding_estimate

PACKAGE = Path(embedding_estimate.__file__).parent
OUTER = {"hosts", "ui", "api", "app", "cli", "demo", "__main__"}  # demo: the model, which nothing else needs
FOREIGN = ("click", "gradio", "fastapi", "pydantic", "diffusers", "transformers", "modules")

BLOCKER = """
import importlib, importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise AssertionError("imports " + name)

sys.meta_path.insert(0, Blocker())
"""


def core() -> list[str]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in OUTER:
            found.append(".".join(["embedding_estimate", *(part for part in parts if part != "__init__")]))
    return found


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.slow
def test_the_core_imports_nothing_of_its_hosts() -> None:
    modules = core()
    assert "embedding_estimate.trainer" in modules and "embedding_estimate.report" in modules
    code = BLOCKER.format(blocked=FOREIGN) + f"for name in {modules!r}: importlib.import_module(name)"
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks() -> None:
    assert "imports click" in python(BLOCKER.format(blocked=FOREIGN) + "import click").stderr


@pytest.mark.parametrize("command", [(), ("demo",), ("estimate",), ("inspect",), ("compare",), ("convert",), ("ui",)])
def test_help_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    heavy = ("torch", "numpy", "PIL", "safetensors", "diffusers", "transformers", "scipy", "gradio")
    code = BLOCKER.format(blocked=heavy) + f"from embedding_estimate.cli import main; main({[*command, '--help']!r})"
    done = python(code)
    assert done.returncode == 0 and "Usage:" in done.stdout, done.stderr
