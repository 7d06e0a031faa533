"""Write the tables of docs/parameters.md from the declarations in the code.

    python tools/write_tables.py            writes them
    python tools/write_tables.py --check    exits with 1 and one line on stderr if the text is out of date

A table stands between the lines `<!-- table: NAME -->` and `<!-- end of table -->`. The text around it is kept.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from embedding_estimate.settings import ALONE, AMONG_WORDS, PARAMETERS, PARTS, Parameter, Settings
from embedding_estimate.teaching.plan import phases

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "parameters.md"
PLACE = re.compile(r"(<!-- table: ([a-z ]+) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)


def settings_table() -> str:
    """One row for each setting: its help text, default, and choices or range."""
    rows = [(f"`{p.name}`", p.label, p.help, default(p), limits(p)) for p in PARAMETERS]
    return table(("setting", "in the tab", "what it does", "default", "choices or range"), rows)


def default(parameter: Parameter) -> str:
    """A default as it is typed; nothing for an empty text."""
    value = {True: "on", False: "off"}[parameter.default] if parameter.kind is bool else parameter.default
    return "" if value == "" else f"`{' / '.join(str(value).splitlines())}`"


def limits(parameter: Parameter) -> str:
    """The choices of a setting, its range with the unit, or the longest text that it takes."""
    if parameter.choices:
        return ", ".join(parameter.choices)
    if parameter.minimum is not None and parameter.maximum is not None:
        return f"{parameter.minimum:g} to {parameter.maximum:,.15g} {parameter.unit}".rstrip()
    texts = [f"up to {parameter.lines} lines"] if parameter.lines else []
    return ", ".join([*texts, *([f"up to {parameter.longest:,} characters"] if parameter.longest else [])])


def parts_table() -> str:
    """One row for each training part: its optimizers, and the learning steps of the phases that run by default."""
    rows = []
    for part in PARTS:
        plans = [phases(Settings(part=part, use=use)) for use in (AMONG_WORDS, ALONE)]
        steps = [" + ".join(f"{phase.steps} {phase.part}" for phase in plan) for plan in plans]
        rows.append((f"`{part}`", " + ".join(dict.fromkeys(phase.optimizer for phase in plans[0])), *steps))
    return table(("training part", "optimizer", f"learning steps, {AMONG_WORDS}", f"learning steps, {ALONE}"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, each line ended."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES: Mapping[str, Callable[[], str]] = {"settings": settings_table, "training parts": parts_table}


def with_tables(text: str) -> str:
    """The text with each of its tables written anew. Raises `ValueError` unless it has a place for each, once."""
    names = [place[2] for place in PLACE.finditer(text)]
    if sorted(names) != sorted(TABLES):
        raise ValueError(f"it has the tables {names} and needs {list(TABLES)}, each between its two comments")
    return PLACE.sub(lambda place: place[1] + TABLES[place[2]]() + place[4], text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, for the command line's arguments or for those given."""
    parser = argparse.ArgumentParser(description="Write the tables of docs/parameters.md from the declarations.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the text is out of date")
    parser.add_argument("document", type=Path, nargs="?", default=DOCUMENT, help="default: docs/parameters.md")
    options = parser.parse_args(arguments)
    document: Path = options.document
    before = document.read_text("utf-8")
    try:
        after = with_tables(before)
    except ValueError as error:
        print(f"{document}: {error}", file=sys.stderr)
        return 1
    if options.check:
        if after == before:
            return 0
        print(f"{document}: its tables are out of date; run python tools/write_tables.py", file=sys.stderr)
        return 1
    document.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
