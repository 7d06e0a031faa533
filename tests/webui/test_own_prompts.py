"""Contexts from the user's own prompts, against the stand-in."""

from pathlib import Path
from typing import Any

import pytest

from embedding_estimate.hosts.webui.own_prompts import MOST, contexts


@pytest.fixture
def history(shared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the WebUI keeps the last image's infotext."""
    from modules import paths

    monkeypatch.setattr(paths, "data_path", str(tmp_path))
    return tmp_path / "params.txt"


def save_styles(shared: Any, monkeypatch: pytest.MonkeyPatch, *styles: tuple[str | None, str | None]) -> None:
    from modules.styles import PromptStyle

    named = {str(number): PromptStyle(str(number), *style) for number, style in enumerate(styles)}
    monkeypatch.setattr(shared.prompt_styles, "styles", named)


def test_a_style_becomes_a_context(history: Path, shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save_styles(
        shared,
        monkeypatch,
        (None, None),  # a heading between two files of styles
        ("", "blurry"),
        ("{prompt}, watercolor,", None),
        ("a castle,\n(best quality:1.2), ", "{prompt}, text"),
        ("oil painting of {prompt}, framed", "blurry,"),
        ("  a castle, (best quality:1.2)", " "),
        ("{prompt}", ""),
    )
    assert contexts(negative=False) == [
        "{}, watercolor",
        "a castle, (best quality:1.2), {}",
        "oil painting of {}, framed",
    ]
    assert contexts(negative=True) == ["blurry, {}", "{}, text"]


def test_the_last_image_comes_first_with_its_styles(history: Path, shared: Any) -> None:
    assert contexts(negative=False) == ["an old painting, {}"] and contexts(negative=True) == ["photo, {}"]
    history.write_text("a circle, an old painting\nSteps: 7", "utf-8")
    assert contexts(negative=False) == ["a circle, an old painting, {}", "an old painting, {}"]
    assert contexts(negative=True) == ["grey, photo, {}", "photo, {}"]


@pytest.mark.parametrize("option", ["hide_ui_dir_config", "no_prompt_history"])
def test_the_last_image_is_not_told_where_the_webui_does_not_tell_it(
    history: Path, shared: Any, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.write_text("a secret\nSteps: 7", "utf-8")
    monkeypatch.setattr(shared.cmd_opts, option, True)
    assert contexts(negative=False) == ["an old painting, {}"]
    monkeypatch.delattr(shared.cmd_opts, "no_prompt_history")  # before 1.9
    monkeypatch.setattr(shared.cmd_opts, "hide_ui_dir_config", False)
    assert contexts(negative=False)[0] == "a secret, {}"


def test_what_no_embedding_can_be_trained_in_is_left_out(
    history: Path, shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("[a cat:a dog:20]", "a cat AND {prompt}", "a castle :0.5", "[a|b], {prompt}", "(a tree:1.3)")
    save_styles(shared, monkeypatch, *((prompt, prompt) for prompt in both))
    assert contexts(negative=False) == ["a castle :0.5, {}", "(a tree:1.3), {}"]  # no longer a part's weight
    assert contexts(negative=True) == ["a cat AND {}", "a castle :0.5, {}", "(a tree:1.3), {}"]


def test_what_the_webui_fails_at_is_left_out(
    history: Path, shared: Any, monkeypatch: pytest.MonkeyPatch, failing_parser: None
) -> None:
    save_styles(shared, monkeypatch, ("[a cat|]", None), ("a castle", None))
    assert contexts(negative=False) == ["a castle, {}"]


def test_there_are_no_more_than_can_be_trained_in(history: Path, shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save_styles(shared, monkeypatch, *((f"style {number}", None) for number in range(100)))
    found = contexts(negative=False)
    assert len(found) == MOST and found[0] == "style 0, {}" and found[-1] == f"style {MOST - 1}, {{}}"
    assert contexts(negative=True) == []


def test_the_tab_offers_them(history: Path, loaded: Any) -> None:
    from embedding_estimate.hosts.webui import extension

    assert list(extension.place().own_contexts(negative=True)) == ["photo, {}"]
