"""The verdict in words, at its thresholds."""

import re
from pathlib import Path

import pytest

from embedding_estimate.fidelity.verdict import ALONE, AMONG_WORDS, EMPHASIS, EXPLAINED, Verdict, verdict

DOCUMENT = Path(__file__).parents[2] / "docs" / "fidelity.md"


@pytest.mark.parametrize("names", [AMONG_WORDS, ALONE])
@pytest.mark.parametrize(
    ("emphasis", "expected"),
    [
        (1.0, Verdict.VERY_CLOSE),
        (0.9, Verdict.VERY_CLOSE),
        (0.89, Verdict.CLOSE),
        (0.5, Verdict.CLOSE),
        (0.49, Verdict.DIFFERS),
        (0.0, Verdict.DIFFERS),
        (-0.01, Verdict.WORSE),
    ],
)
def test_it_is_on_the_effect_of_the_weights(names: tuple[str, str], emphasis: float, expected: Verdict) -> None:
    """The bare words explain 0.99 of many prompts, so what is explained of the whole prompt does not matter."""
    assert verdict(dict(zip(names, (emphasis, 0.995), strict=True)), names) is expected


@pytest.mark.parametrize(
    ("explained", "expected"),
    [
        (0.99, Verdict.VERY_CLOSE),
        (0.98, Verdict.CLOSE),
        (0.9, Verdict.CLOSE),
        (0.8, Verdict.DIFFERS),
        (-1, Verdict.DIFFERS),
    ],
)
def test_without_weights_it_is_on_the_whole_prompt(explained: float, expected: Verdict) -> None:
    assert verdict({"emphasis_explained": None, "explained": explained}, ALONE) is expected


def test_there_is_none_before_it_is_measured() -> None:
    assert verdict({"emphasis_explained": 0.9, "explained": 0.9}, AMONG_WORDS) is None


def test_only_close_ones_are_good() -> None:
    assert [each for each in Verdict if each.good] == [Verdict.VERY_CLOSE, Verdict.CLOSE]


def test_the_document_has_the_same_thresholds() -> None:
    rows = re.findall(
        r"^\| (very close|close|differs|worse[^|]*) \|([^|]+)\|([^|]+)\|$", DOCUMENT.read_text("utf-8"), re.M
    )
    numbers = {name: [float(number) for number in re.findall(r"[\d.]+\d|\b0\b", f"{a} {b}")] for name, a, b in rows}
    assert numbers == {
        "very close": [EMPHASIS["very close"], EXPLAINED["very close"]],
        "close": [EMPHASIS["close"], EXPLAINED["close"]],
        "differs": [0.0],
        "worse than typing the words": [0.0],
    }
