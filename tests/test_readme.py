"""The README and the reference pages keep up with the program."""

import re
from pathlib import Path

import pytest

from embedding_estimate.cli import main
from embedding_estimate.settings import PARAMETERS, PARTS, Parameter

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TABLE = (ROOT / "docs" / "parameters.md").read_text("utf-8")
FOR_USERS = ["README.md", *(f"docs/{page}.md" for page in ("command-line", "files", "parameters", "webui"))]


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.name)
def test_the_table_has_every_setting(parameter: Parameter) -> None:
    (row,) = (line for line in TABLE.splitlines() if line.startswith(f"| `{parameter.name}` |"))
    assert f"| {parameter.label} | {parameter.help} |" in row
    for choice in parameter.choices:
        assert choice in row
    if parameter.minimum is not None:
        assert f"{parameter.minimum:g} to {parameter.maximum:,.15g} {parameter.unit}".rstrip() in row
    if parameter.longest is not None:
        assert f"up to {parameter.longest:,} characters" in row
    if parameter.lines:
        assert f"up to {parameter.lines} lines" in row
    default = {True: "on", False: "off"}[parameter.default] if parameter.kind is bool else parameter.default
    assert default == "" or f"| `{' / '.join(str(default).splitlines())}` |" in row


@pytest.mark.parametrize("part", PARTS)
def test_every_training_part_is_explained(part: str) -> None:
    rows = [line for line in TABLE.splitlines() if re.match(rf"\| `?{re.escape(part)}`? \|", line)]
    assert len(rows) == 2, "one that says what it matches, and a generated one with its learning steps"


@pytest.mark.parametrize("page", FOR_USERS)
def test_every_option_that_is_named_is_one(page: str) -> None:
    options = {name for command in main.commands.values() for option in command.params for name in option.opts}
    named = set(re.findall(r"(?<![\w!-])--[a-z][a-z-]*", (ROOT / page).read_text("utf-8")))
    assert named - {"--help"} <= options, named - options


def test_its_commands_are_all_commands() -> None:
    for command in main.commands:
        assert re.search(rf"`{command}\b", README), command


def test_the_pipeline_finds_the_one_test_command() -> None:
    found = [line for line in README.splitlines() if line.endswith("-m pytest")]
    assert len(found) == 1 and '".[test]"' in found[0]


def test_the_commands_for_windows_are_the_same() -> None:
    """The pipeline looks for the one line that ends in `-m pytest`, so this one names the folder of all tests."""
    posix = [line for line in README.splitlines() if line.startswith("    python3 -m venv")]
    windows = [line for line in README.splitlines() if line.startswith("    py -m venv")]
    assert len(posix) == 2
    assert windows == [
        re.sub(r"\.venv/bin/(\S+)", r".venv\\Scripts\\\1", line).replace("python3", "py", 1).replace(" && ", "; ")
        + (" tests" if line.endswith("-m pytest") else "")
        for line in posix
    ]
