"""Syntax of other programs: seen where it stands, and in no ordinary prompt."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_estimate.checks import foreign_syntax
from embedding_estimate.hosts.standalone import grammar

ORDINARY = (Path(__file__).with_name("ordinary_prompts.txt")).read_text("utf-8").splitlines()
WIDE = str.maketrans("(:)[]", "\uff08\uff1a\uff09\uff3b\uff3d")  # to full-width characters

SEEN = {  # a prompt -> what is quoted of it, what to type instead
    "\u7ea2\u8272 (red:1.3)".translate(WIDE): ("(red:1.3)".translate(WIDE), "type (red:1.3)"),
    "(red\uff1a1.3) circle": ("red\uff1a1.3", "type (red:1.3)"),
    "[red:blue:0.5]".translate(WIDE): ("[red:blue:0.5]".translate(WIDE), "type [red:blue:0.5]"),
    "(red:1,2) circle": ("(red:1,2)", "type (red:1.2)"),
    "[red:blue:0,5] circle": ("[red:blue:0,5]", "type [red:blue:0.5]"),
    "red:1.2 circle": ("red:1.2", "type (red:1.2)"),
    "a dog:1.2 in a hat": ("dog:1.2", "type (dog:1.2)"),
    "(a dog:1.2 in a hat:0.8)": ("dog:1.2", "type (dog:1.2)"),
    "(red):1.2 circle": ("red:1.2", "type (red:1.2)"),
    "red++ circle": ("red++", "type (red:1.21)"),
    "red-- circle": ("red--", "type (red:0.81)"),
    "(red circle)+++": ("(red circle)+++", "type (red circle:1.33)"),
    "(red)- circle": ("(red)-", "type (red:0.9)"),
    "(red)1.3 circle": ("(red)1.3", "type (red:1.3)"),
    '("a cat", "a dog").and()': (".and(", "join the parts with AND"),
    "(embedding:bad-hands:1.3)": ("embedding:bad-hands", "type bad-hands alone"),
    "embedding:mine.pt, red": ("embedding:mine.pt", "type mine.pt alone"),
    "{red|blue} circle": ("{red|blue}", "type the one that you mean"),
    "{2$$red|blue} circle": ("{2$$red|blue}", "type the one that you mean"),
    "{red} circle": ("{red}", "type (red:1.05)"),
    "{{red, best}} circle": ("{{red, best}}", "type (red, best:1.1)"),
    "__color__ circle": ("__color__", "type one of its words"),
    "a __clothes/hats*__": ("__clothes/hats*__", "type one of its words"),
    "a dog --ar 16:9": ("--ar", "leave it out"),
    "red::2 circle": ("red::2", "type (red:2)"),
    "1.2::red circle::, blue": ("1.2::red circle::", "type (red circle:1.2)"),
    "a cat\nNegative prompt: bad": ("Negative prompt:", "--infotext"),
    "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7.5": ("Steps: 20", "Read infotext"),
    "a cat Steps: 20, Sampler: Euler": ("Steps: 20", "Read infotext"),
}


@pytest.mark.parametrize("prompt", SEEN)
@pytest.mark.parametrize("composed", [False, True])
def test_foreign_syntax_is_quoted_and_what_to_type_instead_is_said(prompt: str, composed: bool) -> None:
    quoted, instead = SEEN[prompt]
    (note,) = foreign_syntax.notes(prompt, composed=composed)
    assert note.startswith(f"{quoted} ") and "read as words here" in note and instead in note


@pytest.mark.parametrize("prompt", [prompt for prompt, (_, way_out) in SEEN.items() if way_out.startswith("type (")])
def test_what_is_to_be_typed_is_a_weight_in_the_webuis_grammar(prompt: str) -> None:
    typed = SEEN[prompt][1].removeprefix("type ")
    (segment,) = grammar.emphasise(typed)
    assert segment.weight == float(re.split("[:)]", typed)[1]) != 1


@pytest.mark.parametrize("prompt", ORDINARY)
def test_ordinary_prompts_have_none(prompt: str) -> None:
    assert foreign_syntax.notes(prompt, composed=True) == []


def test_a_number_at_the_end_of_a_part_is_the_parts_weight_where_and_composes() -> None:
    prompt = "a cat :1.2 AND a dog:0.5"
    assert foreign_syntax.notes(prompt, composed=True) == []
    (note,) = foreign_syntax.notes(prompt, composed=False)
    assert note.startswith("dog:0.5 is read as words here")


def test_each_kind_is_told_once() -> None:
    found = foreign_syntax.notes("red++, blue++, {green}, {grey}, __a__", composed=True)
    assert [note.partition(" ")[0] for note in found] == ["red++", "{green}", "__a__"]


def test_a_note_is_one_short_printable_line() -> None:
    (note,) = foreign_syntax.notes("{a\x1b[2J\n" + "b" * 500 + "}", composed=True)
    assert note.isprintable() and len(note) < 250


MARKS = [*"()[]{}|:+-_.,#<>$*", "\\", "1.2", "1,2", "::", "a", " ", "\n", "AND", "__", "++", "\uff08", "\uff1a"]


@given(st.lists(st.sampled_from(MARKS), max_size=40).map("".join) | st.text(max_size=60))
def test_any_text_can_be_looked_through(prompt: str) -> None:
    for note in foreign_syntax.notes(prompt, composed=False):
        assert note.isprintable()
