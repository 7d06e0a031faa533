"""The documents: links lead somewhere, lines are short, and tables keep up with the declarations."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WIDTH = 120  # characters of a line outside tables
LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ *```")
CODE_SPAN = re.compile(r"`[^`\n]*`")
by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(text: str) -> str:
    """A document without its code blocks and code spans, in which brackets are no links."""
    kept, inside = [], False
    for line in text.splitlines():
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return CODE_SPAN.sub("`", "\n".join(kept))


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings; one that comes back gets a number."""
    seen: Counter[str] = Counter()
    found = set()
    inside = False
    for line in document.read_text("utf-8").splitlines():
        inside ^= bool(FENCE.match(line))
        if not inside and (heading := re.match(r"#{1,6} +(.+?) *$", line)):
            slug = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def local_links(document: Path) -> Iterator[tuple[Path, str]]:
    """The file and the anchor, perhaps empty, of each link that stays within the repository."""
    for link in LINK.findall(prose(document.read_text("utf-8"))):
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            yield (document.parent / path if path else document), anchor


@by_document
def test_links_lead_to_files_and_headings(document: Path) -> None:
    broken = [
        f"{file}#{anchor}"
        for file, anchor in local_links(document)
        if not file.exists() or (anchor and anchor not in anchors(file))
    ]
    assert broken == []


@by_document
def test_lines_outside_tables_are_short(document: Path) -> None:
    lines = enumerate(document.read_text("utf-8").splitlines(), 1)
    assert [number for number, line in lines if len(line) > WIDTH and not line.startswith("|")] == []


def test_every_document_is_linked_from_another() -> None:
    linked = {
        file.resolve()
        for document in DOCUMENTS
        for file, _ in local_links(document)
        if file.resolve() != document.resolve()
    }
    assert [str(path) for path in DOCUMENTS if path.resolve() not in linked and path != ROOT / "README.md"] == []


def test_the_documents_that_comments_name_exist() -> None:
    sources = [path for folder in ("embedding_estimate", "tests", "tools", "benchmarks") for path in sources_in(folder)]
    named = {name for path in sources for name in re.findall(r"docs/[\w/-]+\.md", path.read_text("utf-8"))}
    assert named and [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def sources_in(folder: str) -> Iterator[Path]:
    return (ROOT / folder).rglob("*.py")


def test_an_anchor_is_spelled_as_on_github(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("# What's new, in 1.2?\n## A `--json` option\n## Again\n## Again\n```\n# no heading\n```\n")
    assert anchors(document) == {"whats-new-in-12", "a---json-option", "again", "again-1"}


def test_generated_tables_are_up_to_date() -> None:
    tool = [sys.executable, str(ROOT / "tools" / "write_tables.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
