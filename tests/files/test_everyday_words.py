"""Names that people type into prompts anyway, told by their shape or by a short list."""

import pytest

from embedding_estimate.files.everyday_words import TAGS, typed_anyway

TYPED = (
    *("t-shirt", "T-Shirt", "x-ray", "v-neck", "close-up", "see-through", "full-body", "half-body", "one-piece"),
    *("black-and-white", "head-to-toe", "over-the-shoulder", "blue-eyed", "long-sleeved", "good-looking", "long_hair"),
    *("1girl", "2girls", "6+girls", "1boy", "8k", "35mm", "3d", "2024", "1.4", "16-9", "lowres", "bokeh", "sci-fi"),
)
MADE_UP = (
    *("red-disc", "demo-red-circle", "no-mess", "red-circle", "bad-hands", "easy-negative", "my-style", "zebra-two"),
    *(
        "blurry-embedding",
        "t-shirt-embedding",
        "2-red-circle",
        "a-cat-a",
        "x-x-x",
        "x1",
        "v1.5",
        "a_b.c",
        "xqz",
        "ねこ",
    ),
    *("red-ring", "-", "--", "a-", "_"),
)


@pytest.mark.parametrize("name", TYPED)
def test_compounds_counts_and_tags_are_typed_anyway(name: str) -> None:
    assert typed_anyway(name)


@pytest.mark.parametrize("name", MADE_UP)
def test_other_names_are_not(name: str) -> None:
    assert not typed_anyway(name)


def test_a_compound_is_made_of_words() -> None:
    words = {"t", "shirt", "girl", "blue"}
    assert [typed_anyway(name, words.__contains__) for name in ("t-shirt", "1girl", "blue-eyed")] == [True] * 3
    assert not any(typed_anyway(name, words.__contains__) for name in ("t-xqz", "1xqz", "xqz-eyed", "xqz-and-blue"))


def test_the_list_holds_what_no_shape_tells() -> None:
    """Each tag once, in the form that names are compared in."""
    for tag in TAGS:
        assert tag == tag.casefold() and typed_anyway(tag.replace("-", "_"))
