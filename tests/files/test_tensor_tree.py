"""Trees of numbers, texts and tensors: they come back as they were, and damage is found."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from embedding_estimate.files.tensor_tree import REFUSALS, outline, packed, unpacked

TREE: dict[str, Any] = {
    "number": 0.1,
    "none": None,
    "pairs": [(1, 0.5), (2, float("nan"))],
    "deep": {3: {"history": [torch.arange(6.0).reshape(2, 3).T, None, torch.tensor(2.5, dtype=torch.double)]}},
    "half": torch.ones(3, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
    "bytes": torch.arange(5, dtype=torch.uint8),
}


def test_a_tree_comes_back() -> None:
    tree = unpacked(packed(TREE))
    assert (tree["number"], tree["none"], tree["pairs"][0]) == (0.1, None, [1, 0.5])
    assert tree["pairs"][1][1] != tree["pairs"][1][1]
    matrix, nothing, number = tree["deep"]["3"]["history"]
    assert matrix.tolist() == [[0, 3], [1, 4], [2, 5]] and nothing is None
    assert number.dtype == torch.double and number.shape == () and number.item() == 2.5
    assert (
        tree["half"].dtype == torch.bfloat16 and tree["empty"].shape == (0, 4) and tree["empty"].dtype == torch.float32
    )
    assert tree["bytes"].tolist() == [0, 1, 2, 3, 4]


def test_tensors_of_one_memory_come_back_apart() -> None:
    one = torch.ones(2)
    tree = unpacked(packed({"a": one, "b": one[:1]}))
    tree["a"].zero_()
    assert tree["b"].item() == 1


def test_the_outline_is_read_without_the_tensors(tmp_path: Path) -> None:
    data = packed({"step": 3, "large": torch.zeros(1000)})
    (tmp_path / "it").write_bytes(data[:-4000])
    assert outline(tmp_path / "it") == {"step": 3, "large": {"tensor": "/large"}}


@pytest.mark.parametrize("changed", [1, 0x80, 0xFF])
def test_no_damage_is_overlooked(changed: int) -> None:
    data = packed({"step": 3, "tensor": torch.arange(4.0)})
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= changed
        with suppress(*REFUSALS):
            assert_same(unpacked(bytes(damaged)))
        with pytest.raises(REFUSALS):
            unpacked(data[:place])


def assert_same(tree: dict[str, Any]) -> None:
    """What is read after all, as where a blank became another, is what was written."""
    assert tree["step"] == 3 and tree["tensor"].tolist() == [0, 1, 2, 3]
