"""Words that look like the name of an embedding that is not there."""

from pathlib import Path

import pytest

from embedding_estimate.checks.embedding_words import missing

ORDINARY = (Path(__file__).with_name("ordinary_prompts.txt")).read_text("utf-8").splitlines()
NAMES = (
    *("bad-hands-5", "ng_deepnegative_v1_75t", "EasyNegative", "easynegative", "badhandv4", "bad_prompt_version2"),
    *("verybadimagenegative_v1.3", "negative_hand-neg", "negativeXL_D", "BadDream", "FastNegativeV2", "bad-artist"),
    *("bad-picture-chill-75v", "bad-image-v2-39000", "CyberRealistic_Negative", "JuggernautNegative", "Asian-Less-Neg"),
)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_well_known_embeddings_are_seen_where_there_are_none(name: str) -> None:
    assert missing([f"blurry, ({name}:1.2), {name.upper()}."], []) == [name, name.upper()][: 1 + (name != name.upper())]
    assert missing([f"blurry, {name}"], ["other", name.swapcase()]) == []


def test_each_is_named_once_whatever_prompt_it_stands_in() -> None:
    assert missing(["EasyNegative, red", "bad-hands-5, EasyNegative"], []) == ["EasyNegative", "bad-hands-5"]
    assert missing(["<lora:EasyNegative:1> red"], []) == []


def test_ordinary_words_are_none() -> None:
    assert missing(ORDINARY, []) == []
