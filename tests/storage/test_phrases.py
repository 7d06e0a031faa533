"""What a file records about how it is typed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from embedding_estimate.storage.phrases import recorded_weight


@pytest.mark.parametrize("recorded", [None, math.nan, math.inf, "1.2", True, [1.2], {}])
def test_a_file_that_tells_no_weight_means_the_bare_name(recorded: Any) -> None:
    assert recorded_weight({"typed_weight": recorded}) == recorded_weight({}) == 1.0


@pytest.mark.parametrize("recorded", [1.2, 0.9, 2, 2.5, 0, -1])
def test_a_file_tells_its_weight(recorded: float) -> None:
    """As a prompt may have it: without bounds."""
    assert recorded_weight({"typed_weight": recorded}) == recorded
