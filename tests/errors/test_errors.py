"""What is quoted in a message steers no terminal and can be written everywhere."""

import pytest

from embedding_estimate.errors import EmbeddingError, SettingsError, printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, caf\u00e9, \u8d64\u3000\u4e38, a\u00a0b", "plain, caf\u00e9, \u8d64\u3000\u4e38, a\u00a0b"),
        ("a\x1b[2Jb\x07\x9b\x7f", r"a\x1b[2Jb\x07\x9b\x7f"),
        ("a\nb\rc\td\0", r"a\nb\rc\td\x00"),
        ("a\u202eb\u2028c", r"a\u202eb\u2028c"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert str(EmbeddingError(text)) == shown


def test_the_problems_of_settings_stay_lines() -> None:
    error = SettingsError(["one\x1b", "two\nthree"])
    assert error.problems == [r"one\x1b", r"two\nthree"] and str(error) == "one\\x1b\ntwo\\nthree"


def test_shortened() -> None:
    assert shortened("x" * 40) == "x" * 40
    assert shortened("x" * 41) == "x" * 37 + "..."
