"""The command line on the toy host."""

import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from command_line import Run
from toy import ToyHost

from embedding_estimate.cli import main
from embedding_estimate.errors import ModelError


@pytest.fixture(autouse=True)
def in_a_terminal(signals: None, brief: None) -> None:
    """For all tests of the command line, none of which looks at the value of a figure."""


@pytest.fixture
def loads(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Puts the toy in the standalone host's place; returns what it was loaded with."""
    seen: list[dict] = []

    class StandaloneHost:
        @staticmethod
        def load(model: object, **options: object) -> ToyHost:
            seen.append({"model": model, **options})
            if model == "missing":
                raise ModelError("missing: no such file or folder")
            return toy_host

    module = types.ModuleType("host")
    module.StandaloneHost = StandaloneHost
    monkeypatch.setitem(sys.modules, "embedding_estimate.hosts.standalone.host", module)
    return seen


@pytest.fixture
def run(loads: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return invoke
