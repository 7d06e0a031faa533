"""What the tests of the command line share."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

QUICK = ("--tokens", "2", "--learning-steps", "10", "--steps", "4")
Run = Callable[..., Result]


def last(result: Result) -> dict:
    return json.loads(result.stdout.splitlines()[-1])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def program(*arguments: str, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error", "-m", "embedding_estimate", *arguments]
    return subprocess.run(command, capture_output=True, **options)
