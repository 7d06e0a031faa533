"""Names: the grammar and the file systems they must survive."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_estimate.files import names
from embedding_estimate.hosts.standalone import grammar

GOOD = [
    "mine",
    "Bad Hands v2",
    "easy-negative",
    "a_b.c",
    "v1.5",
    "naïve",
    "ねこ",
    "and",
    "break",
    "sAND",
    "console",
    "com10",
    "com",
    "it's",
    "x" * names.MAX_BYTES,
]

BAD = {
    "": "a prompt calls an embedding by its name; give it a name",
    "   ": "a prompt calls an embedding by its name; give it a name",
    "a:b": "weights",
    "a|b": "alternation",
    "(a": "emphasis",
    "a)": "emphasis",
    "[a": "schedules",
    "a]": "schedules",
    "a,b": "tag",
    "a#b": "comment",
    "<a": "extra networks",
    "a>": "extra networks",
    "a{}": "template",
    "a.safetensors": "the file extension is added automatically; leave it out",
    "a.PT": "the file extension is added automatically; leave it out",
    "a/b": "folders",
    "..\\a": "escapes",
    'a"b': "Windows",
    "a?": "Windows",
    "a*": "Windows",
    "a\nb": "typed or seen",
    "a\tb": "typed or seen",
    "a\0b": "typed or seen",
    "a\u00a0b": "typed or seen",
    "a\u200bb": "typed or seen",
    "a\u202eb": "typed or seen",
    "a\ud800": "typed or seen",
    " a": "space",
    "a ": "space",
    "AND": "write and",
    "cats AND dogs": "write and",
    "a-AND-b": "write and",
    "BREAK": "write break",
    "a.BREAK": "write break",
    ".a": "hidden",
    "..": "hidden",
    "a.": "dot at the end",
    "con": "device",
    "NUL": "device",
    "Aux.v2": "device",
    "com1": "device",
    "LPT9 .x": "device",
    "com¹": "device",
    "cafe\u0301": "composed form 'café'",
    "x" * (names.MAX_BYTES + 1): "shorten",
    "ね" * 50: "shorten",
}


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name: str) -> None:
    assert names.problems(name) == []


@pytest.mark.parametrize(("name", "expected"), BAD.items())
def test_bad_names_say_why_on_one_printable_line(name: str, expected: str) -> None:
    found = names.problems(name)
    assert any(expected in line for line in found)
    for line in found:
        assert line.startswith("name=") and ("; " in line)
        assert "\n" not in line
        line.encode()  # printable: no lone surrogates


def test_every_problem_is_listed() -> None:
    assert len(names.problems(".(con: AND ")) == 5


def read(prompt: str) -> list[tuple[int, float, list[grammar.Segment]]]:
    """A prompt as hosts read it: comments and extra networks taken out, then all that the grammar divides."""
    prompt = re.sub(r"#[^\n]*", "", prompt)
    prompt = re.sub(r"<\w+:[^>]+>", "", prompt)
    return [
        (until, weight, grammar.emphasise(text))
        for part, weight in grammar.compose(prompt)
        for until, text in grammar.schedule(part, 20)
    ]


name_like = st.text(st.sampled_from("aZ9 ANDBREK()[]:|,#<>{}\\/._-'\n\té\u0301\u200b"), max_size=12)


@given(name_like | st.text(max_size=20))
def test_accepted_names_are_one_piece_and_a_file_name(name: str) -> None:
    if names.problems(name):
        return
    for prompt in (name, f"a photo of {name}"):
        assert read(prompt) == [(20, 1.0, [grammar.Segment(prompt, 1.0)])]
    assert Path(name).name == name and Path(f"{name}.safetensors").stem == name
    assert unicodedata.is_normalized("NFC", name)
    assert name.format("vectors") == name
    assert len(f"{name}.safetensors".encode()) <= 143


CALLED = [
    "mine",
    "a,b",
    "a|b",
    "a:b",
    "t-shirt",
    "{x}",
    "sAND",
    "break",
    "con",
    ".a",
    "a.pt",
    "a<b",
    "cafe\u0301",
    " a",
]
NOT_CALLED = {
    "BREAK": "the word BREAK splits a prompt",
    "a AND b": "the word AND splits a prompt",
    "no(paren)": "'(' stands for emphasis",
    "a)": "')' stands for emphasis",
    "[a]": "'[' stands for emphasis and schedules",
    "a\\b": "'\\\\' stands for folders and escapes",
    "a#b": "'#' stands for a comment",
    "<lora:a>": "'<' stands for extra networks",
    "a:1.2": "its end is read as a weight",
    "\u3000": "nothing in it can be typed",
    "caf\udce9": "it is not text",
}


@pytest.mark.parametrize("name", CALLED)
def test_names_of_others_that_prompts_call(name: str) -> None:
    assert names.uncallable(name) == ""
    assert read(name) == [(20, 1.0, [grammar.Segment(name, 1.0)])]


@pytest.mark.parametrize(("name", "reason"), NOT_CALLED.items())
def test_names_of_others_that_no_prompt_calls(name: str, reason: str) -> None:
    line = names.uncallable(name)
    assert f"no prompt can call this name, because {reason}; rename the file" in line
    line.encode()


@given(name_like | st.text(max_size=20))
def test_a_name_that_is_called_is_one_piece_of_a_prompt(name: str) -> None:
    if names.uncallable(name):
        return
    for prompt in (name, f"a photo of {name}"):
        ((until, weight, (segment,)),) = read(prompt)
        assert (until, weight, segment.weight) == (20, 1.0, 1.0)
        assert segment.text.split() == prompt.split()


VOCABULARY = {"red": 1, "circle": 2, "bad": 3, "hands": 4, ",": 5, "-": 6, "!": 7, "x": 8, "up": 9, "two": 10}


def token_ids(text: str) -> list[int]:
    """Splits like CLIP's tokenizer: lower case, runs of letters, single digits, runs of other signs."""
    ids: list[int] = []
    for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", text.lower()):
        ids += [VOCABULARY[word]] if word in VOCABULARY else [1000 + ord(letter) for letter in word]
    return ids


@pytest.mark.parametrize(
    ("name", "others", "expected"),
    [
        ("xqz", [], []),
        ("Red", [], ["ordinary words"]),
        ("bad hands", [], ["ordinary words", "ComfyUI cannot call a name with a space"]),
        ("xqz two", [], ["ComfyUI cannot call a name with a space"]),
        ("red-bad", [], []),
        ("close-up", [], []),  # compounds of what are no words to this tokenizer
        ("black-and-red", [], []),
        ("lowres", [], ["people use this in prompts"]),
        ("bad-hands", [], []),
        ("xqz!", [], ["comma"]),
        ("bad-hands", ["bad"], ["begins with bad, and is called instead if the rest of this name follows"]),
        ("xqz", ["xqz-hands"], ["begins xqz-hands, which is called instead if the rest of that name follows"]),
        ("xqz-a", ["xqz - a"], ["same tokens as xqz - a"]),
        ("xqz", ["XQZ", "xqz", "other", "\u3000"], []),
    ],
)
def test_warnings(name: str, others: list[str], expected: list[str]) -> None:
    found = names.warnings(name, token_ids, others)
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))


@pytest.mark.parametrize("name", ["x-red", "X-Red", "red-up", "red_up", "two-hands", "1hands", "2024", "1.4"])
def test_a_name_of_several_tokens_that_people_type_is_told(name: str) -> None:
    found = names.warnings(name, token_ids, [])
    assert found == [f"{name}: people use this in prompts, and each such prompt would call it; choose a made-up name"]


def test_a_name_without_tokens_cannot_be_called() -> None:
    assert "drops every character" in names.warnings("xqz", lambda text: [], ["a"])[0]


def test_names_of_files_that_are_no_text() -> None:
    def ids(text: str) -> list[int]:
        text.encode()  # as every tokenizer does
        return token_ids(text)

    assert names.warnings("xqz", ids, ["caf\udce9", "xqz\udce9"]) == []
    assert names.warnings("xqz", token_ids, ["xqz\x1b-hands"]) == [
        r"xqz: begins xqz\x1b-hands, which is called instead if the rest of that name follows; rename it"
    ]
