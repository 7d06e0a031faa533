"""The core runs inside programs that bring their own libraries: it imports none of theirs, and nothing early."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from suites import quick_first

import embedding_estimate
from embedding_estimate.files.embedding import Embedding, write

PACKAGE = Path(embedding_estimate.__file__).parent
# demo is the bundled model, which nothing else needs
OUTER = {"hosts", "ui", "api", "app", "cli", "demo", "python_api", "__main__"}
ROOMS = (  # each imports from those before it only
    *("errors", "model", "progress", "optimizers", "files", "settings", "teaching", "fidelity", "storage"),
    *("objectives", "training", "checks", "estimation", "reports", "jobs", "ui", "api", "demo", "hosts", "app", "cli"),
    *("python_api", "__main__"),
)
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
    assert "embedding_estimate.estimation.trainer" in modules and "embedding_estimate.reports.report" in modules
    code = BLOCKER.format(blocked=FOREIGN) + f"for name in {modules!r}: importlib.import_module(name)"
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks() -> None:
    assert "imports click" in python(BLOCKER.format(blocked=FOREIGN) + "import click").stderr


@pytest.mark.parametrize("command", quick_first(2, ["", "estimate", "demo", "inspect", "compare", "convert", "ui"]))
def test_help_imports_nothing_heavy(command: str) -> None:
    heavy = ("torch", "numpy", "PIL", "safetensors", "diffusers", "transformers", "scipy", "gradio")
    code = (
        BLOCKER.format(blocked=heavy)
        + f"from embedding_estimate.cli import main; main({[*command.split(), '--help']!r})"
    )
    done = python(code)
    assert done.returncode == 0 and "Usage:" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_inspect_imports_nothing_heavy(tmp_path: Path, suffix: str) -> None:
    heavy = ("torch", "PIL", "diffusers", "transformers", "scipy", "gradio", "fastapi", "tqdm")
    words = [{"name": name, "tokens": 1, "typed_weight": 1.2} for name in ("it-a", "it-b")]
    for word in words:
        write(
            Embedding(word["name"], {"clip_l": torch.tensor([[3.0, 4.0]])}, {"words": words}),
            tmp_path / f"{word['name']}{suffix}",
        )
    arguments = ["inspect", str(tmp_path / f"it-a{suffix}")]
    done = python(BLOCKER.format(blocked=heavy) + f"from embedding_estimate.cli import main; main({arguments!r})")
    assert done.returncode == 0 and "1 x 2, norms 5 to 5" in done.stdout and not done.stderr, done.stderr
    assert "typed as (it-a:1.2) (it-b:1.2)" in done.stdout


def imported(path: Path) -> Iterator[str]:
    """The rooms that a file imports from, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("embedding_estimate"):
            _, *inner = node.module.split(".")
            yield from inner[:1] or [alias.name for alias in node.names]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if room == "__init__":
        return
    order = {name: place for place, name in enumerate(ROOMS)}
    for other in {*imported(path)} - {room, "__version__"}:
        assert order[other] < order[room], f"{room} imports {other}"


def test_every_room_has_its_place() -> None:
    assert {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in PACKAGE.rglob("*.py")} == {
        *ROOMS,
        "__init__",
    }


def test_the_package_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "PIL", "safetensors", "tqdm", *FOREIGN)
    code = BLOCKER.format(blocked=heavy) + (
        "import embedding_estimate; from embedding_estimate import Settings, EstimateError, Progress, StopToken; "
        "print(Settings(text='a').text, sorted(set(embedding_estimate.__all__) - set(dir(embedding_estimate))))"
    )
    done = python(code)
    assert (done.stdout, done.returncode) == ("a []\n", 0), done.stderr


def test_the_package_offers_what_it_lists_and_nothing_else() -> None:
    for name in embedding_estimate.__all__:
        value = getattr(embedding_estimate, name)
        assert value.__name__ == name and value.__doc__
    with pytest.raises(AttributeError, match="module 'embedding_estimate' has no attribute 'estimat'"):
        embedding_estimate.estimat  # noqa: B018
    assert (PACKAGE / "py.typed").is_file()
