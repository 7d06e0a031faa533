"""The average of an optimizer's steps."""

import pytest
import torch

from embedding_estimate.training.averaging import Average


def run(decay: float, *steps: float) -> float:
    leaves = {"clip_l": torch.tensor([[-100.0]], requires_grad=True)}
    average = Average(leaves, decay)
    for value in steps:
        with torch.no_grad():
            leaves["clip_l"].fill_(value)
        average.update()
    return average.leaves["clip_l"].item()


def test_by_hand() -> None:
    assert run(0.5, 8.0) == 8
    assert run(0.5, 8.0, 2.0) == pytest.approx((1 * 8 + 2 * 2) / 3)
    assert run(0.5, 8.0, 2.0, 4.0) == pytest.approx((1 * 8 + 2 * 2 + 4 * 4) / 7)


def test_without_decay_it_is_the_last() -> None:
    assert run(0.0, 8.0, 2.0, 0.1) == torch.tensor(0.1).item()


def test_what_does_not_change_is_its_own_average() -> None:
    assert run(0.9, *[0.1] * 500) == pytest.approx(0.1)
