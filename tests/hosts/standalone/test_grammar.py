"""The prompt language: worked examples, properties, and what 1.10.1 itself answers."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_estimate.hosts.standalone import grammar

GOLDEN = json.loads((Path(__file__).parents[2] / "data/a1111_1_10_1_grammar.json").read_text("utf-8"))["rows"]
PIECES = [*"[]():|\\ab ,", "0.5", "3", "1.2.3", " AND ", " BREAK ", "[a:b:3]", "[c:.5]", "[x|y]", "(z:1.2)"]
SOUP = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)


def test_golden() -> None:
    for prompt, evaluations, parts, stages, segments in GOLDEN:
        assert [list(part) for part in grammar.compose(prompt)] == parts, prompt
        assert [list(stage) for stage in grammar.schedule(prompt, evaluations)] == stages, prompt
        assert [list(segment) for segment in grammar.emphasise(prompt)] == segments, prompt


def test_nested_weights_multiply() -> None:
    """b stands in (…:0.8), (…:1.3) and [ ]: 1.3 first, as its bracket closes first, then / 1.1, then * 0.8."""
    segments = grammar.emphasise("(a [(b:1.3)]:0.8)")
    assert segments == [("a ", 0.8), ("b", 1.3 * (1 / 1.1) * 0.8)]


def test_break_survives_only_outside_of_emphasis() -> None:
    assert [segment.is_break for segment in grammar.emphasise("a BREAK b")] == [False, True, False]
    assert not any(segment.is_break for segment in grammar.emphasise("(a BREAK b:1.2)"))


def test_a_weight_that_is_no_number_is_text() -> None:
    assert grammar.emphasise("(a:1.2.3)") == [("a:1.2.3)", 1.1)]


@pytest.mark.parametrize(
    ("prompt", "stages"),
    [
        ("a [b:c:0.25] d", [(2, "a b d"), (10, "a c d")]),
        ("[a|b]", [(n, "ba"[n % 2]) for n in range(1, 11)]),
        ("[a:b:1e999]", [(10, "a")]),
        ("[a:b:-1e999]", [(10, "b")]),
        ("a | [b:c:3]", [(10, "a | [b:c:3]")]),
    ],
)
def test_schedules(prompt: str, stages: list[tuple[int, str]]) -> None:
    assert grammar.schedule(prompt, 10) == stages


@given(SOUP, st.integers(1, 30))
def test_stages_are_in_order_and_the_last_lasts_to_the_end(prompt: str, evaluations: int) -> None:
    ends = [end for end, _ in grammar.schedule(prompt, evaluations)]
    assert ends == sorted(set(ends)) and ends[0] >= 1 and ends[-1] == evaluations


@given(SOUP)
def test_neighbouring_segments_differ_in_weight(prompt: str) -> None:
    segments = grammar.emphasise(prompt)
    assert segments and all(a.weight != b.weight for a, b in pairwise(segments))


@given(st.text(alphabet=st.characters(exclude_characters="()[]:\\")))
def test_text_without_signs_is_one_stage(prompt: str) -> None:
    assert grammar.schedule(prompt, 5) == [(5, prompt)]


@settings(max_examples=50)
@given(SOUP, SOUP)
def test_composition_is_piecewise(left: str, right: str) -> None:
    assert grammar.compose(f"{left} AND {right}") == grammar.compose(f"{left} ") + grammar.compose(f" {right}")


def test_a_weight_may_end_in_what_is_hardly_space() -> None:
    assert grammar.compose("red :0.5\x1f") == [("red", 0.5)]


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param(", ".join(f"(word{n}:1.2) [cat:dog:0.5]" for n in range(2500)), marks=pytest.mark.slow),
        "(" * 5000,
        "[a:3]" + "]" * 5000,
        "[" * 2000 + "a" + ":3]" * 2000,
        "(" * 2000 + "[a|b]" + ")" * 2000,
        "(a" * 2000,
        " " * 5000 + ":",
    ],
    ids=lambda prompt: prompt[:12],
)
def test_long_prompts_are_read_to_their_end(prompt: str) -> None:
    """Which exponential time, or Python's limit on recursion, would not let them be."""
    (part,) = grammar.compose(prompt)
    for until, stage in grammar.schedule(part[0], 10):
        assert 0 < until <= 10 and grammar.emphasise(stage)
