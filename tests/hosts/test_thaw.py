"""Weights that come from inference mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from embedding_estimate.hosts.thaw import thaw


def locked(*, moved: bool) -> nn.Sequential:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        model[2].weight = model[0].weight
    return model.double() if moved else model  # outside, as another extension might


@pytest.mark.parametrize("moved", [False, True])
def test_a_gradient_goes_through_weights_of_inference_mode_once_thawed(moved: bool) -> None:
    model = locked(moved=moved).eval()
    values = [value.detach().clone() for value in model.state_dict().values()]
    x = torch.ones(2, 3, dtype=model[0].weight.dtype, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"[Ii]nference tensor"):
        model(x).sum().backward()
    thaw([model, model[0]])
    model(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert model[2].weight is model[0].weight
    assert all(torch.equal(new, old) for new, old in zip(model.state_dict().values(), values, strict=True))


def test_other_weights_are_left_as_they_are() -> None:
    model = nn.Linear(3, 3)
    before = model.weight, model.bias
    thaw([model])
    assert model.weight is before[0] and model.bias is before[1] and model.weight.requires_grad
