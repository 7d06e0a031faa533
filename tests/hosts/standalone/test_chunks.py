"""How tokens are laid out in chunks: by hand on chunks of four places, and as 1.10.1 lays them out."""

import json
from itertools import chain, repeat
from pathlib import Path

import pytest
from hosts.standalone import tiny
from hypothesis import given
from hypothesis import strategies as st

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.hosts.standalone.chunks import Chunk, Lookup, Marks, Placed, Run, Unit, build, empty
from embedding_estimate.hosts.standalone.conditioner import Conditioner

DATA = json.loads((Path(__file__).parents[2] / "data/a1111_1_10_1_chunks.json").read_text("utf-8"))
B, E, P, COMMA = 90, 91, 0, 9
MARKS = Marks(begin=B, end=E, pad=P, comma=COMMA, length=4)


def laid(*units: int | Placed, backtrack: int = 2) -> list[list[int]]:
    return [chunk.tokens for chunk in chunked(*units, backtrack=backtrack)]


def chunked(*units: int | Placed, backtrack: int = 2) -> list[Chunk]:
    made = [Unit(None, unit) if isinstance(unit, Placed) else Unit(unit) for unit in units]
    return build([Run(made, 1.5)], MARKS, backtrack)[0]


def named(count: int, name: str = "name") -> Placed:
    return Placed(name, {}, count)


def test_padding_begins_behind_the_end_mark() -> None:
    assert laid(1, 2) == [[B, 1, 2, E, P, P]]
    assert laid() == [[B, E, P, P, P, P]] == [empty(MARKS).tokens]
    assert laid(1, 2, 3, 4, 5) == [[B, 1, 2, 3, 4, E], [B, 5, E, P, P, P]]


def test_a_near_comma_takes_what_follows_along() -> None:
    assert laid(1, 2, COMMA, 3, 4) == [[B, 1, 2, COMMA, E, P], [B, 3, 4, E, P, P]]
    assert laid(1, COMMA, 2, 3, 4) == [[B, 1, COMMA, 2, 3, E], [B, 4, E, P, P, P]]  # too far back
    assert laid(1, 2, 3, COMMA, 4) == [[B, 1, 2, 3, COMMA, E], [B, 4, E, P, P, P]]
    assert laid(1, 2, COMMA, 3, COMMA) == [[B, 1, 2, COMMA, 3, E], [B, COMMA, E, P, P, P]]  # a comma does not pull
    assert laid(1, 2, COMMA, 3, 4, backtrack=0) == [[B, 1, 2, COMMA, 3, E], [B, 4, E, P, P, P]]


def test_an_embedding_is_never_torn() -> None:
    first, second = chunked(1, 2, named(3))
    assert first.tokens == [B, 1, 2, E, P, P] and not first.fixes
    assert second.tokens == [B, 0, 0, 0, E, P] and [fix.offset for fix in second.fixes] == [0]
    assert second.multipliers == [1.0, 1.5, 1.5, 1.5, 1.0, 1.0]


def test_an_embedding_that_moves_behind_its_comma_leaves_its_vectors_where_they_were() -> None:
    first, second = chunked(1, 2, COMMA, named(1), 3)
    assert first.tokens == [B, 1, 2, COMMA, E, P] and [fix.offset for fix in first.fixes] == [3]
    assert second.tokens == [B, 0, 3, E, P, P] and not second.fixes


def test_break_ends_a_chunk_even_an_empty_one() -> None:
    chunks, count = build([Run(None, -1), Run([Unit(1)], 1.0), Run(None, -1)], MARKS)
    assert [chunk.tokens for chunk in chunks] == [[B, E, P, P, P, P], [B, 1, E, P, P, P]]
    assert count == 8


def test_more_vectors_than_places_is_an_error() -> None:
    with pytest.raises(EmbeddingError, match=r"name: 5 vectors, .* holds 4"):
        chunked(named(5))


def test_the_longest_name_is_found_and_among_equals_the_first() -> None:
    lookup = Lookup()
    for name, tokens in [("ab", [1, 2]), ("a", [1]), ("AB", [1, 2]), ("abc", [1, 2, 3])]:
        lookup.add(named(1, name), tokens)

    def found(*tokens: int) -> list[str | int | None]:
        return [unit.placed.name if unit.placed else unit.token for unit in lookup.units(tokens)]

    assert found(1, 2, 3, 1, 2, 1, 4) == ["abc", "ab", "a", 4]
    lookup.add(named(1, "ab"), [1, 2])
    assert found(1, 2) == ["AB"]  # the one added again comes last
    lookup.remove("AB")
    lookup.remove("unknown")
    assert found(1, 2) == ["ab"]
    with pytest.raises(EmbeddingError, match="no token"):
        lookup.add(named(1, " "), [])


@given(st.lists(st.one_of(st.integers(1, 9), st.integers(1, 4).map(named)), max_size=40))
def test_every_token_is_kept_in_order(units: list[int | Placed]) -> None:
    chunks = chunked(*units)
    assert all(len(chunk.tokens) == len(chunk.multipliers) == 6 for chunk in chunks)
    kept = [token for chunk in chunks for token, m in zip(chunk.tokens, chunk.multipliers, strict=True) if m == 1.5]
    assert kept == list(chain.from_iterable(repeat(0, u.count) if isinstance(u, Placed) else [u] for u in units))
    assert sum(len(chunk.fixes) for chunk in chunks) == sum(isinstance(unit, Placed) for unit in units)


def runs(values: list[int] | list[float]) -> list[list[float]]:
    """Lengths of runs: [[value, times], …]."""
    found: list[list[float]] = []
    for value in values:
        if found and found[-1][0] == value:
            found[-1][1] += 1
        else:
            found.append([value, 1])
    return found


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_golden(family: str) -> None:
    key = {"sd1": "clip_l", "sd2": "clip_h"}[family]
    embeddings = {name: tiny.vectors({key: 16}, count, 0) for name, count in DATA["embeddings"].items()}
    conditioner = Conditioner(tiny.loaded(family, tiny.tokenizer()), embeddings=embeddings)
    for of, prompt, count, expected in DATA["rows"]:
        if of == family:
            chunks, counted = conditioner.layout(prompt)
            assert counted == count, prompt
            laid_out = [
                [runs(chunk.tokens), runs(chunk.multipliers), [[fix.offset, fix.placed.name] for fix in chunk.fixes]]
                for chunk in chunks
            ]
            assert laid_out == expected, prompt
