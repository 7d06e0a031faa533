"""A phrase saved as a style: against the stand-in, and in a real WebUI by its own database."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.hosts.webui.styles import names, save
from embedding_estimate.hosts.webui.txt2img import Txt2img

PHRASE = "(it-a:1.5) it-b"


@pytest.fixture
def file(shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in keeps its styles."""
    path = tmp_path / "styles.csv"
    monkeypatch.setattr(shared.prompt_styles, "default_path", path)
    return path


def rows(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return list(csv.reader(opened))


@pytest.mark.parametrize("negative", [False, True])
def test_a_style_types_the_phrase_on_its_side(file: Path, negative: bool) -> None:
    assert save("it", PHRASE, negative) == "saved as the style it"
    assert names() == ["old", "it"]
    own = ["it", "", PHRASE] if negative else ["it", PHRASE, ""]
    assert rows(file) == [["name", "prompt", "negative_prompt"], ["old", "an old painting", "photo"], own]


def test_no_style_is_overwritten(file: Path) -> None:
    assert save("old", PHRASE, False) == "saved as the style old (2), for old is another"
    assert save("old", "(old-a:1.2) old-b", False) == "saved as the style old (3), for old is another"
    assert [row[1] for row in rows(file)[1:]] == ["an old painting", PHRASE, "(old-a:1.2) old-b"]
    before = file.read_bytes()
    assert save("old", PHRASE, False) == "the style old (2) is there already"
    assert file.read_bytes() == before and names() == ["old", "old (2)", "old (3)"]
    assert save("old", PHRASE, True) == "saved as the style old (4), for old is another"


def test_a_heading_is_no_style_to_compare_with(shared: Any, file: Path) -> None:
    from modules.styles import PromptStyle

    shared.prompt_styles.styles["it"] = PromptStyle("it", None, None, "do_not_save")
    assert save("it", PHRASE, False) == "saved as the style it (2), for it is another"


def test_what_cannot_be_written_is_no_style(file: Path) -> None:
    file.mkdir()
    with pytest.raises(EmbeddingError, match=r"^it: the WebUI cannot write its styles \(Is a directory\)"):
        save("it", PHRASE, False)
    assert names() == ["old"]


def test_an_early_webui_is_told_the_file(shared: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from modules import styles

    class Style(NamedTuple):
        name: str
        prompt: str
        negative_prompt: str

    class Database:
        def __init__(self) -> None:
            self.styles: dict[str, Style] = {}

        def save_styles(self, path: str) -> None:
            Path(path).write_text("\n".join(map(str, map(tuple, self.styles.values()))), "utf-8")

    monkeypatch.setattr(styles, "PromptStyle", Style)
    monkeypatch.setattr(shared, "prompt_styles", Database())
    monkeypatch.setattr(shared, "styles_filename", str(tmp_path / "its.csv"), raising=False)
    assert save("it", PHRASE, True) == "saved as the style it"
    assert (tmp_path / "its.csv").read_text("utf-8") == f"('it', '', '{PHRASE}')"


def test_the_lists_of_styles_on_the_page_are_noticed() -> None:
    page = Txt2img()
    ids = ("txt2img_styles", "img2img_styles", "txt2img_styles_edit_select", "txt2img_steps")
    for name in ids:
        page.notice(name, elem_id=name)
    assert list(page.style_lists) == list(ids[:3])
    page.notice("new", elem_id="txt2img_styles")  # after Reload UI
    assert page.style_lists["txt2img_styles"] == "new" == page.components["Styles array"]


def test_a_place_saves_what_its_tab_asks_for(loaded: Any, file: Path) -> None:
    from embedding_estimate.hosts.webui import extension

    place = extension.place()
    extension.notice("list", elem_id="img2img_styles")
    assert list(place.style_lists()) == ["list"]
    assert place.save_style("it", PHRASE, False) == ("saved as the style it", ["old", "it"])


def test_in_a_webui(webui: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own database, on files of the test's own: it reads back what was saved, and applies it."""
    from modules import styles

    file = tmp_path / "styles.csv"
    file.write_text("name,prompt,negative_prompt\nold,an old painting,photo\n", "utf-8")
    early = "path" in styles.StyleDatabase.__init__.__annotations__
    made: Callable[[], Any] = lambda: styles.StyleDatabase(str(file) if early else [str(file)])  # noqa: E731
    monkeypatch.setattr(webui, "prompt_styles", made())
    monkeypatch.setattr(webui, "styles_filename", str(file) if early else [str(file)])
    assert save("it", PHRASE, False) == "saved as the style it"
    assert save("old", PHRASE, True) == "saved as the style old (2), for old is another"
    assert save("it", PHRASE, False) == "the style it is there already"
    again = made()
    assert [tuple(style)[:3] for style in again.styles.values()] == [
        ("old", "an old painting", "photo"),
        ("it", PHRASE, ""),
        ("old (2)", "", PHRASE),
    ]
    assert again.apply_styles_to_prompt("a castle", ["it"]) == f"a castle, {PHRASE}"
    assert again.apply_negative_styles_to_prompt("", ["old (2)"]) == PHRASE
