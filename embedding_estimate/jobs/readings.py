"""What a training reports on its way: a curve of loss and explained, in bounded room however long it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, overload

MOST = 481  # readings that are kept: a chart shows no more. An odd number has even distances when every second goes


class Reading(NamedTuple):
    """One look at a training."""

    step: int
    loss: float
    explained: float


@dataclass
class Stretch:
    """Readings that one measure was taken of. Those of two stretches do not compare."""

    name: str  # the training part, or the number of vectors
    readings: list[Reading] = field(default_factory=list)


class Readings(Sequence[Reading]):
    """The readings of all stretches. Where they grow too many, every second one goes; first and last always stay."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self._every = 1  # of so many readings one is kept
        self._behind = 0  # how many readings the last one is behind the last that is kept

    def add(self, stretch: str, reading: Reading) -> None:
        """Adds a reading. Those of the stretch that are not before it go: its training went back to an earlier step."""
        if not self.stretches or self.stretches[-1].name != stretch:
            self.stretches.append(Stretch(stretch))
            self._behind = 0
        kept = self.stretches[-1].readings
        if self._behind:
            kept = kept[:-1]
        kept = [earlier for earlier in kept if earlier.step < reading.step]
        self.stretches[-1].readings = [*kept, reading]  # a new list: others may be reading the old one
        self._behind = (self._behind + 1) % self._every if kept else 0
        if len(self) >= MOST and not self._behind:
            self._thin()

    def _thin(self) -> None:
        for stretch in self.stretches:
            stretch.readings = [*stretch.readings[:-1:2], stretch.readings[-1]]
        self._every *= 2
        self._behind = 0

    def __len__(self) -> int:
        return sum(len(stretch.readings) for stretch in self.stretches)

    def __iter__(self) -> Iterator[Reading]:
        for stretch in list(self.stretches):
            yield from stretch.readings

    @overload
    def __getitem__(self, index: int) -> Reading: ...
    @overload
    def __getitem__(self, index: slice) -> list[Reading]: ...
    def __getitem__(self, index: int | slice) -> Reading | list[Reading]:
        return list(self)[index]
