"""How many vectors an embedding has, where nobody says."""

from typing import Any

import pytest
from toy import ToyModel

from embedding_estimate.settings import Settings
from embedding_estimate.training.start import number_of_vectors


@pytest.mark.parametrize(
    ("values", "number"),
    [
        ({}, 2),  # those of the text
        ({"text": "red (circle:1.8) star"}, 3),  # weights take no place
        ({"text": "cat"}, 1),
        ({"text": "red " * 200}, 4),  # a chunk's
        ({"tokens": 5}, 5),
        ({"token_source": "Initial prompt", "initial_prompt": "red blue star", "tokens": 5}, 3),
    ],
)
def test_an_embedding_has_as_many_vectors_as_the_text_has_tokens(
    toy: ToyModel, values: dict[str, Any], number: int
) -> None:
    assert number_of_vectors(Settings(**{"text": "red circle", **values}), toy) == number
