"""The documents: links lead somewhere, lines are short, and tables keep up with the declarations."""

import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_imports import OUTER, ROOMS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PACKAGE = ROOT / "embedding_estimate"
PARAMETERS_PAGE = ROOT / "docs" / "parameters.md"
WIDTH = 120  # characters of a line outside tables
LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ *```")
CODE_SPAN = re.compile(r"`[^`\n]*`")
WRITTEN_ANEW = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # which keeps its entries
by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def outside_code(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a document that are in no code block, with their numbers."""
    fenced, blank, indented = False, True, False
    for number, line in enumerate(text.splitlines(), 1):
        indented = line.startswith("    ") and (blank or indented)
        if FENCE.match(line):
            fenced = not fenced
        elif not fenced and not indented:
            yield number, line
        blank = not line.strip()


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings; one that comes back gets a number."""
    seen: Counter[str] = Counter()
    found = set()
    for _, line in outside_code(document.read_text("utf-8")):
        if heading := re.match(r"#{1,6} +(.+?) *$", line):
            slug = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return found


def local_links(document: Path) -> Iterator[tuple[Path, str]]:
    """The file and the anchor, perhaps empty, of each link that stays within the repository."""
    text = "\n".join(line for _, line in outside_code(document.read_text("utf-8")))
    for link in LINK.findall(CODE_SPAN.sub("`", text)):
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


@pytest.mark.parametrize("document", WRITTEN_ANEW, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_outside_tables_and_code_are_short(document: Path) -> None:
    lines = outside_code(document.read_text("utf-8"))
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
    pages = re.compile(r"docs/[\w/-]+\.md")
    named = {name for path in sources for name in pages.findall(path.read_text("utf-8"))}
    assert named and [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def sources_in(folder: str) -> Iterator[Path]:
    return (ROOT / folder).rglob("*.py")


NAMED = re.compile(r"`([\w./-]+\.(?:py|js|css|json))(?:: ([\w.]+))?`")  # a file, and perhaps a name in it
MADE_BY_WEBUIS = {"ui-config.json"}


def named_file(name: str) -> Path | None:
    """A file that a document names from the repository on, from the package on, or in the demo model's folder."""
    places = (ROOT, PACKAGE, PACKAGE / "demo" / "shapes")
    return next((place / name for place in places if (place / name).exists()), None)


@pytest.mark.parametrize(
    "document", [path for path in WRITTEN_ANEW if path.parent.name != "notes"], ids=lambda p: p.name
)
def test_the_code_that_a_document_names_exists(document: Path) -> None:
    missing = []
    for name, inner in NAMED.findall(document.read_text("utf-8")):
        file = named_file(name)
        if file is None:
            missing += [name] if name not in MADE_BY_WEBUIS else []
        elif inner and not re.search(rf"(?:def|class) {inner.rpartition('.')[2]}\b", file.read_text("utf-8")):
            missing.append(f"{name}: {inner}")
    assert missing == []


PLACED = re.compile(r"((?:`\w+`(?:, | or | and )?)+) in `([\w/]+\.py)`")  # names, and the file that defines them


def test_a_name_is_defined_where_a_document_says_that_it_is() -> None:
    defined = r"(?m)^(?:\s*(?:def|class) {0}\b|(?:\w+(?:, \w+)* = )?(?:\w+, )*{0}\b(?:, \w+)*(?::[^=\n]+)? = )"
    text = "\n".join(document.read_text("utf-8") for document in WRITTEN_ANEW)
    named = [(name, file) for names, file in PLACED.findall(text) for name in re.findall(r"`(\w+)`", names)]
    elsewhere = [
        f"{name} in {file}"
        for name, file in named
        if not re.search(defined.format(name), found.read_text("utf-8") if (found := named_file(file)) else "")
    ]
    assert len(named) > 10 and elsewhere == []


def test_the_architecture_lists_the_rooms_in_the_order_of_their_imports() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    listed = re.findall(
        r"^\| `(\w+)(?:/|\.py)` \|", text[text.index("## Modules") : text.index("## A walk")], re.MULTILINE
    )
    assert listed == [room for room in ROOMS if room != "__main__"]


def test_every_module_of_the_core_is_in_the_list_of_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    inside = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.stem != "__init__"]
    modules = [path for path in inside if len(path.parts) == 2 and path.parts[0] not in OUTER]
    assert modules and [str(path) for path in modules if f"`{path.as_posix()}`" not in text] == []


def test_an_anchor_is_spelled_as_on_github(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("# What's new, in 1.2?\n## A `--json` option\n## Again\n## Again\n```\n# no heading\n```\n")
    assert anchors(document) == {"whats-new-in-12", "a---json-option", "again", "again-1"}


@pytest.fixture
def write_tables(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the tool; returns its exit code and what it says on stderr."""
    spec = importlib.util.spec_from_file_location("write_tables", ROOT / "tools" / "write_tables.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments: str) -> tuple[int, str]:
        return tool.main(arguments), capsys.readouterr().err

    return run


def test_generated_tables_are_up_to_date(write_tables: Callable[..., tuple[int, str]]) -> None:
    assert write_tables("--check") == (0, "")


def test_a_table_that_is_out_of_date_is_one_line_and_can_be_written_anew(
    write_tables: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    text = PARAMETERS_PAGE.read_text("utf-8")
    page = tmp_path / "parameters.md"
    page.write_text(text.replace("| 0 to 75 |", "| 0 to 74 |"), "utf-8")
    said = f"{page}: its tables are out of date; run python tools/write_tables.py\n"
    assert write_tables("--check", str(page)) == (1, said)
    assert write_tables(str(page)) == (0, "")
    assert page.read_text("utf-8") == text


def test_a_page_without_a_place_for_a_table_is_refused(
    write_tables: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    text = PARAMETERS_PAGE.read_text("utf-8").replace("<!-- table: training parts -->\n", "")
    page = tmp_path / "parameters.md"
    page.write_text(text, "utf-8")
    code, said = write_tables(str(page))
    assert code == 1 and said.count("\n") == 1 and "training parts" in said
    assert page.read_text("utf-8") == text
