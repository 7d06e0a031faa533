"""The curve of a job stays small and keeps its ends."""

import itertools

import pytest
from suites import quick_first

from embedding_estimate.jobs.readings import MOST, Reading, Readings


def taken(numbers: list[int], stretch: str = "Attention") -> Readings:
    readings = Readings()
    for number in numbers:
        readings.add(stretch, Reading(number, 1 / number, 0.5))
    return readings


@pytest.mark.parametrize("number", quick_first(4, [1, MOST, MOST + 1, 5 * MOST + 3, 60_000]))
def test_of_many_readings_few_are_kept_first_and_last_among_them_at_even_distances(number: int) -> None:
    steps = [reading.step for reading in taken([*range(1, number + 1)])]
    assert min(number, MOST // 2) <= len(steps) <= MOST
    assert (steps[0], steps[-1]) == (1, number)
    distances = {after - before for before, after in itertools.pairwise(steps[:-1])}
    assert len(distances) <= 1


def test_all_are_there_while_they_are_few() -> None:
    readings = taken([2, 3, 5])
    assert list(readings) == [(2, 1 / 2, 0.5), (3, 1 / 3, 0.5), (5, 1 / 5, 0.5)]
    assert readings[-1].step == 5 and readings[:2] == list(readings)[:2] and len(readings) == 3


def test_a_new_stretch_begins_a_new_line() -> None:
    readings = taken([1, 20], "Sketch")
    readings.add("Attention", Reading(21, 3.2, 0.55))
    assert [(stretch.name, [at.step for at in stretch.readings]) for stretch in readings.stretches] == [
        ("Sketch", [1, 20]),
        ("Attention", [21]),
    ]


def test_a_long_stretch_takes_nothing_from_the_ends_of_another() -> None:
    readings = taken([1, 20], "Sketch")
    for step in range(21, 21 + 10 * MOST):
        readings.add("Attention", Reading(step, 1.0, 0.5))
    sketch, attention = (stretch.readings for stretch in readings.stretches)
    assert [at.step for at in sketch] == [1, 20] and len(readings) <= MOST
    assert (attention[0].step, attention[-1].step) == (21, 20 + 10 * MOST)


def test_a_training_that_goes_back_takes_its_readings_with_it() -> None:
    """As one does whose memory ran out."""
    readings = taken([10, 20, 30, 21, 25])
    assert [reading.step for reading in readings] == [10, 20, 21, 25]


def test_who_reads_while_readings_come_sees_a_whole_line() -> None:
    readings = taken([1, 2])
    seen = readings.stretches[0].readings
    readings.add("Attention", Reading(1, 1.0, 0.0))
    assert [reading.step for reading in seen] == [1, 2]
