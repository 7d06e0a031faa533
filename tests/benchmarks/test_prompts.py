"""The prompts that are measured."""

import re
from pathlib import Path

import pytest

from benchmarks.prompts import Prompt, generate, read
from embedding_estimate.demo.words import SHAPES

pytestmark = pytest.mark.tools

SEEDS = range(40)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|,", re.sub(r":[\d.]+\)", ")", text))


def tokens(text: str) -> int:
    """CLIP's tokens: of the demo model's words, only `outlined` is two."""
    return len(words(text)) + words(text).count("outlined")


@pytest.mark.parametrize("seed", SEEDS)
def test_prompts_keep_to_their_bounds(seed: int) -> None:
    prompts = generate(12, seed)
    for prompt in prompts:
        weights = [float(number) for number in re.findall(r":([\d.]+)\)", prompt.text)]
        assert 1 <= len(weights) <= 3
        assert all(0.5 <= weight <= 1.6 and weight != 1 for weight in weights)
        assert 3 <= tokens(prompt.text) <= 40
        assert bool(prompt.other) == prompt.negative
        assert all("(" not in text and set(words(text)) & set(SHAPES) for text in prompt.other)
    assert min(tokens(p.text) for p in prompts) <= 6 and max(tokens(p.text) for p in prompts) >= 25
    assert {p.negative for p in prompts} == {True, False}


def test_the_seed_decides() -> None:
    assert generate(12, 3) == generate(12, 3)
    assert generate(12, 3) != generate(12, 4)
    assert len(generate(17, 3)) == 17


def test_weighted_words_are_written_as_in_a_webui() -> None:
    for prompt in generate(30, 5):
        assert re.fullmatch(r"(?:(?:[a-z]+|\([a-z]+:\d\.\d\))(?:, | |$))+", prompt.text)


def test_a_file_holds_prompts_or_json(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(
        "a (red:1.5) circle\n\n- (blurry:1.4), dark\n"
        '{"text": "-noisy", "negative": true, "other": ["a red star", "a blue ring"]}\n'
    )
    assert read(file) == [
        Prompt("a (red:1.5) circle"),
        Prompt("(blurry:1.4), dark", negative=True),
        Prompt("-noisy", negative=True, other=("a red star", "a blue ring")),
    ]


@pytest.mark.parametrize("line", ["{", '{"negative": true}', '{"text": 3}', '{"text": "a", "weight": 2}'])
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(f"a red circle\n{line}\n")
    with pytest.raises(ValueError, match=r"prompts\.jsonl, line 2: "):
        read(file)
