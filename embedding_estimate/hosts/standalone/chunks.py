"""Lays out tokens in chunks, the rows of 77 that a text encoder takes, as AUTOMATIC1111 1.10.1 does.

A chunk is a begin mark, 75 tokens and an end mark. If the end would separate a word from its comma, the chunk ends
after the comma before. An embedding takes as many places as it has vectors and is never divided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from embedding_estimate.errors import EmbeddingError, quoted
from embedding_estimate.model.host import Vectors

BACKTRACK = 20  # tokens behind a comma that move into the next chunk with it, the WebUI's default


@dataclass(frozen=True, eq=False)
class Placed:
    """Vectors that stand in a prompt under a name."""

    name: str
    vectors: Vectors  # encoder key -> (N, width); empty if only their places are kept
    count: int  # places they take in a chunk


class Unit(NamedTuple):
    """What occupies places in a chunk: a token, or an embedding whose name begins with the token `token`."""

    token: int | None
    placed: Placed | None = None


class Run(NamedTuple):
    """Units under one weight. A `BREAK` has None in place of units."""

    units: Sequence[Unit] | None
    weight: float


class Fix(NamedTuple):
    """Vectors for the places after `offset`. The begin mark counts as a place."""

    offset: int
    placed: Placed


@dataclass
class Chunk:
    """The tokens that the text encoder reads at once, without its begin and end marks."""

    tokens: list[int] = field(default_factory=list)  # 0 in the places of vectors
    multipliers: list[float] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)

    def occupied(self, placed: Mapping[str, Placed]) -> Chunk:
        """The chunk with these vectors, by name, in the places that were kept for them."""
        fixes = [fix if fix.placed.vectors else Fix(fix.offset, placed[fix.placed.name]) for fix in self.fixes]
        return Chunk(self.tokens, self.multipliers, fixes)


@dataclass(frozen=True)
class Marks:
    """The tokens with special meanings. CLIP-L pads with its end mark, OpenCLIP with 0."""

    begin: int
    end: int
    pad: int
    comma: int | None
    length: int = 75  # tokens in a chunk without its begin and end marks


@dataclass
class _Node:
    """A node of the tree of names: the tokens that may follow, and the names that end here."""

    following: dict[int, _Node] = field(default_factory=dict)  # by token
    named: dict[str, Placed] = field(default_factory=dict)  # the embeddings whose names end here, in their order


class Lookup:
    """Finds embeddings by the tokens of their names.

    If several names match, the one with the most tokens wins, and among those the one that was added first.
    """

    def __init__(self) -> None:
        self._root = _Node()
        self._ends: dict[str, _Node] = {}  # by name

    def add(self, placed: Placed, tokens: Sequence[int]) -> None:
        """Adds an embedding, or replaces the one of the same name. Raises EmbeddingError for a name without tokens."""
        if not tokens:
            raise EmbeddingError(
                f"{quoted(placed.name)}: the tokenizer finds no token in this name; choose another name"
            )
        self.remove(placed.name)
        node = self._root
        for token in tokens:
            node = node.following.setdefault(token, _Node())
        node.named[placed.name] = placed
        self._ends[placed.name] = node

    def remove(self, name: str) -> None:
        """Removes an embedding. An unknown name is ignored."""
        node = self._ends.pop(name, None)
        if node is not None:
            del node.named[name]

    def units(self, tokens: Sequence[int]) -> Iterator[Unit]:
        """The tokens, with every name among them replaced by its embedding."""
        position = 0
        while position < len(tokens):
            placed, end = self._longest(tokens, position)
            yield Unit(tokens[position], placed)
            position = end

    def _longest(self, tokens: Sequence[int], start: int) -> tuple[Placed | None, int]:
        """The embedding with the longest name that starts at `start`, and the place after that name; None and the next
        place if there is none."""
        longest: tuple[Placed | None, int] = None, start + 1
        node = self._root
        for place in range(start, len(tokens)):
            following = node.following.get(tokens[place])
            if following is None:
                break
            node = following
            if node.named:
                longest = next(iter(node.named.values())), place + 1
        return longest


def build(runs: Iterable[Run], marks: Marks, backtrack: int = BACKTRACK) -> tuple[list[Chunk], int]:
    """The chunks of a prompt, at least one, and the number of tokens that the prompt counts, with inner padding.

    Raises EmbeddingError if an embedding has more vectors than a chunk has places.
    """
    builder = _Builder(marks, backtrack)
    for units, weight in runs:
        if units is None:
            builder.close()
            continue
        for unit in units:
            builder.add(unit, weight)
    return builder.finish()


def empty(marks: Marks) -> Chunk:
    """The chunk of an empty prompt. It fills up a shorter prompt in a batch."""
    return build([], marks)[0][0]


class _Builder:
    def __init__(self, marks: Marks, backtrack: int):
        self.marks = marks
        self.backtrack = backtrack
        self.chunks: list[Chunk] = []
        self.chunk = Chunk()
        self.comma: int | None = None  # place of the chunk's last comma
        self.count = 0

    @property
    def full(self) -> bool:
        return len(self.chunk.tokens) == self.marks.length

    def add(self, unit: Unit, weight: float) -> None:
        token, placed = unit
        if token is not None and token == self.marks.comma:
            self.comma = len(self.chunk.tokens)
        elif self.full and self.comma is not None and self.marks.length - self.comma <= self.backtrack:
            self.move_behind_comma(self.comma + 1)
        if self.full:
            self.close()
        if placed is None:
            assert token is not None
            self.put([token], weight)
            return
        if placed.count > self.marks.length:
            raise EmbeddingError(
                f"{placed.name}: {placed.count} vectors, but a prompt chunk of this model holds {self.marks.length}; "
                f"use {self.marks.length} or fewer"
            )
        if len(self.chunk.tokens) + placed.count > self.marks.length:
            self.close()
        self.chunk.fixes.append(Fix(len(self.chunk.tokens), placed))
        self.put([0] * placed.count, weight)

    def put(self, tokens: list[int], weight: float) -> None:
        self.chunk.tokens += tokens
        self.chunk.multipliers += [weight] * len(tokens)

    def move_behind_comma(self, start: int) -> None:
        """Ends the chunk behind its comma. Its fixes stay with it, as in the WebUI: the vectors of an embedding
        that moves are then put over the padding, and 0 stands where the embedding went."""
        tokens, multipliers = self.chunk.tokens[start:], self.chunk.multipliers[start:]
        del self.chunk.tokens[start:], self.chunk.multipliers[start:]
        self.close()
        self.chunk.tokens, self.chunk.multipliers = tokens, multipliers

    def close(self, last: bool = False) -> None:
        chunk, marks = self.chunk, self.marks
        self.count += len(chunk.tokens) if last else marks.length
        self.put([marks.end] * (marks.length - len(chunk.tokens)), 1.0)
        chunk.tokens = [marks.begin, *chunk.tokens, marks.end]
        chunk.multipliers = [1.0, *chunk.multipliers, 1.0]
        if marks.pad != marks.end:
            behind_end = chunk.tokens.index(marks.end) + 1
            chunk.tokens[behind_end:] = [marks.pad] * (len(chunk.tokens) - behind_end)
        self.chunks.append(chunk)
        self.chunk = Chunk()
        self.comma = None

    def finish(self) -> tuple[list[Chunk], int]:
        if self.chunk.tokens or not self.chunks:
            self.close(last=True)
        return self.chunks, self.count
