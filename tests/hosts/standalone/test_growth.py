"""Work grows with a text's length, and no faster: counted where it can be, elsewhere by texts of the longest length.

These take a moment. Where a text were read again from each of its characters, they would take minutes.
"""

from __future__ import annotations

from typing import Any

import ftfy
import pytest
import torch
from hosts.standalone import tiny

from embedding_estimate.hosts.slots import PRIVATE
from embedding_estimate.hosts.standalone import brackets, grammar, infotext
from embedding_estimate.hosts.standalone.chunks import Lookup, Placed, Unit
from embedding_estimate.hosts.standalone.conditioner import Conditioner
from embedding_estimate.hosts.standalone.grammar import Segment
from embedding_estimate.hosts.standalone.host import WEBUIS_OWN
from embedding_estimate.hosts.standalone.text_encoder import clean
from embedding_estimate.settings import LONGEST_PROMPT

HALF, THIRD, QUARTER = LONGEST_PROMPT // 2, LONGEST_PROMPT // 3, LONGEST_PROMPT // 4


class Token(int):
    """A token that counts how often it is looked at."""

    looks = 0

    def __eq__(self, other: object) -> bool:
        Token.looks += 1
        return int(self) == other

    def __hash__(self) -> int:
        Token.looks += 1
        return int.__hash__(self)


def looks(names: int) -> int:
    """How often tokens are looked at where a text has all of so many names that begin alike."""
    lookup, text = Lookup(), []
    Token.looks = 0
    for number in range(names):
        tokens = [Token(7), Token(number % 100), Token(number // 100)]
        lookup.add(Placed(f"name{number}", {}, 1), tokens)
        text += tokens
    assert [unit.placed.name for unit in lookup.units(text) if unit.placed] == [f"name{n}" for n in range(names)]
    return Token.looks


@pytest.mark.slow
def test_names_that_begin_alike_are_found_in_the_same_time_however_many_there_are() -> None:
    assert looks(2000) < 2.1 * looks(1000)


@pytest.mark.slow
def test_each_name_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    conditioner = Conditioner(tiny.loaded("sd1", tiny.tokenizer()))
    asked: list[Any] = []
    tokenize = conditioner._first.tokenize
    monkeypatch.setattr(conditioner._first, "tokenize", lambda texts: asked.extend(texts) or tokenize(texts))
    names = [f"sks {number}" for number in range(300)]
    vectors = tiny.vectors({"clip_l": 16}, 1, seed=1)
    for name in [*names, names[0]]:
        conditioner.add_embedding(name, vectors)
    assert asked == [*names, names[0]] and conditioner.embedding_names() == names


def test_a_removed_name_leaves_the_longer_ones_that_it_begins() -> None:
    lookup = Lookup()
    short, long = Placed("a", {}, 1), Placed("ab", {}, 1)
    lookup.add(short, [1])
    lookup.add(long, [1, 2])
    lookup.remove("a")
    assert list(lookup.units([1, 2, 1])) == [Unit(1, long), Unit(1)]


@pytest.mark.parametrize("levels", [20, 2000])
def test_an_ampersand_escaped_many_times_is_read_a_few_times(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []
    unescape = ftfy.fixes.unescape_html
    monkeypatch.setitem(ftfy.FIXERS, "unescape_html", lambda text: passes.append(text) or unescape(text))
    nested = "&" + "amp;" * levels
    assert clean(f"Salt {nested} pepper", open_clip=False) == "salt & pepper"
    assert len(passes) < 12
    assert clean(f"a\n<b> {nested}", open_clip=False) == f"a <b> {nested}"  # where ftfy takes entities as they are
    assert clean(f"{nested}lt;\n<b>", open_clip=False) == "< <b>"


def breaks(number: int) -> list[Segment]:
    return [Segment("a", 1.0), *[Segment("BREAK", -1.0), Segment("a", 1.0)] * number]


SEGMENTS = {
    "blanks": ("a" + " " * (LONGEST_PROMPT - 2) + "b", [Segment("a" + " " * (LONGEST_PROMPT - 2) + "b", 1.0)]),
    "blanks behind a colon": ("(a:" + " " * HALF + "b", [Segment("a:" + " " * HALF + "b", 1.1)]),
    "breaks": ("a BREAK " * 10_000 + "a", breaks(10_000)),
    "brackets in each other": ("(a" * QUARTER + ":1)" * QUARTER, [Segment("a" * QUARTER, 1.0)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", SEGMENTS)
def test_the_longest_prompts_are_weighed(case: str) -> None:
    text, expected = SEGMENTS[case]
    assert grammar.emphasise(text) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        ")" * LONGEST_PROMPT,
        "(]" * HALF,
        "([)]" * QUARTER,
        "(" * HALF + "a:b:c" + "]" * (HALF - 5),
        "[" * THIRD + "a:b" + "]" * THIRD,
        "[a:3)" * (LONGEST_PROMPT // 5),
    ],
    ids=lambda text: text[:5],
)
def test_the_longest_prompts_without_a_schedule_are_one_stage(text: str) -> None:
    assert grammar.schedule(text, 10) == [(10, text)]


@pytest.mark.slow
def test_the_longest_schedules_in_each_other_are_unrolled() -> None:
    assert grammar.schedule("[" * QUARTER + "a" + ":3]" * QUARTER, 10) == [(3, ""), (10, "a")]


@pytest.mark.parametrize("depth", [200, 400])
def test_brackets_are_read_once(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of brackets in each other that are no schedule, each pair is asked for once and looks at its own words only."""
    looked: list[int] = []

    class Items(list[Any]):
        def __getitem__(self, place: Any) -> Any:
            looked.append(1)
            return super().__getitem__(place)

    pair = brackets._pair
    monkeypatch.setattr(brackets, "_pair", lambda items, start, sign: pair(Items(items), start, sign))
    text = "[" * depth + "a:b" + "]" * depth
    assert grammar.schedule(text, 10) == [(10, text)]
    assert len(looked) == depth + 3  # three words and signs in the innermost pair, one sign in each other


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a" * LONGEST_PROMPT, "a, " * THIRD, '"' * (LONGEST_PROMPT - 1), "a:" * HALF])
def test_the_longest_texts_are_no_infotext(text: str) -> None:
    assert infotext.parse(text) == {"Prompt": text.strip(), "Negative prompt": ""}


def test_the_longest_infotext() -> None:
    many = ", ".join(f"K{number}: {number}" for number in range(8000))
    told = infotext.parse(f"a cat\n{many}")
    assert told["Prompt"] == "a cat" and told["K7999"] == "7999" and len(told) == 8002


def test_the_longest_row_of_extra_networks_without_an_end() -> None:
    assert WEBUIS_OWN.findall("<a:" * THIRD) == [] and WEBUIS_OWN.findall("<a:" * THIRD + "b>") == ["<a:b>"]


@pytest.mark.slow
def test_a_template_of_private_characters_has_a_slot() -> None:
    assert len(PRIVATE) > LONGEST_PROMPT
    live = tiny.vectors({"clip_l": 16}, 1, seed=1)
    conditioner = Conditioner(tiny.loaded("sd1", tiny.tokenizer()), embeddings={"sks": live})
    private = "".join(map(chr, range(0xE000, 0xF900)))
    [slot] = conditioner.encode_vectors(live, [f"{private} {{}}"], width=64, height=64)
    [stage] = conditioner.encode(f"{private} sks", evaluations=1, width=64, height=64)
    assert torch.equal(slot.context, stage.parts[0][0].context)
