"""The README keeps up with the program."""

import re
from pathlib import Path

import pytest

from embedding_estimate.cli import main
from embedding_estimate.settings import PARAMETERS, Parameter

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.name)
def test_the_table_has_every_setting(parameter: Parameter) -> None:
    (row,) = (line for line in README.splitlines() if line.startswith(f"| `{parameter.name}` |"))
    assert parameter.help in row
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


def test_every_option_that_is_named_is_one() -> None:
    options = {name for command in main.commands.values() for option in command.params for name in option.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README))
    assert named <= options, named - options


def test_its_commands_are_all_commands() -> None:
    for command in main.commands:
        assert re.search(rf"`{command}\b", README), command


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^):]+)\)", README):
        path, _, heading = link.partition("#")
        file = ROOT / (path or "README.md")
        assert file.is_file(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            assert heading in [text.lower().replace(" ", "-") for text in headings], link


def test_the_pipeline_finds_the_one_test_command() -> None:
    found = [line for line in README.splitlines() if line.endswith("-m pytest")]
    assert len(found) == 1 and '".[test]"' in found[0]
