"""The arguments that start any WebUI on the CPU, without what it would install, download or compare."""

from __future__ import annotations

from pathlib import Path

WANTED = (
    *("--skip-install", "--skip-torch-cuda-test", "--skip-python-version-check", "--skip-version-check"),
    *("--no-half", "--no-download-sd-model", "--skip-prepare-environment", "--do-not-download-clip"),
    *("--use-cpu all", "--always-cpu", "--cpu"),
)
PARSERS = ("modules/cmd_args.py", "backend/args.py", "ldm_patched/modules/args_parser.py")


def knows(folder: Path, argument: str) -> bool:
    """Whether the WebUI in this folder has such an argument: one that it does not know would end it."""
    parsers = (folder / parser for parser in PARSERS)
    return any(f'"{argument}"' in parser.read_text("utf-8") for parser in parsers if parser.exists())


def arguments(folder: Path) -> list[str]:
    """Those of `WANTED` that the WebUI in this folder knows."""
    return [word for argument in WANTED if knows(folder, argument.split()[0]) for word in argument.split()]
