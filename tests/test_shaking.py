"""Other seeds reach what they are meant for."""

import pytest
import shaking
import torch
from toy import ToyModel


def test_another_shake_makes_another_toy_and_the_same_one_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ToyModel().table
    assert torch.equal(ToyModel().table, own)
    monkeypatch.setattr(shaking, "SHAKE", shaking.SHAKE + 1)
    assert not torch.equal(ToyModel().table, own)
