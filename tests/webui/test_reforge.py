"""reForge and Forge Classic, as far as their memory goes, without their modules."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from embedding_estimate.hosts.lending import given_back
from embedding_estimate.hosts.webui.reforge.pipeline import ReforgePipeline


class BasicTransformerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, state: Tensor) -> Tensor:
        hidden: Tensor = self.linear(state).sin().cos()
        return hidden


@pytest.fixture
def unet() -> nn.Module:
    return nn.Sequential(BasicTransformerBlock(), BasicTransformerBlock())


def pipeline(unet: nn.Module) -> ReforgePipeline:
    objects = SimpleNamespace(unet=SimpleNamespace(model=SimpleNamespace(diffusion_model=unet)))
    return ReforgePipeline(SimpleNamespace(forge_objects=objects))


def test_weights_that_are_cast_in_each_call_are_not_kept_for_the_backward_pass(shared: Any, unet: nn.Module) -> None:
    """As where memory is short, and some of the U-Net is on the CPU."""

    def kept() -> tuple[int, Tensor]:
        saved: list[Tensor] = []
        state = torch.ones(1, 4, requires_grad=True)
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t)
        with pipeline(unet).set_up(), hooks:
            unet(state).sum().backward()
        assert state.grad is not None
        return len(saved), state.grad

    plain, expected = kept()
    unet[0].linear.ldm_patched_cast_weights = True
    less, gradient = kept()
    assert less < plain
    torch.testing.assert_close(gradient, expected)
    assert all("forward" not in vars(part) for part in unet.modules())


def test_what_the_manager_notes_at_the_weights_during_a_job_stays(unet: nn.Module) -> None:
    """Old notes would have the next image run on weights that are elsewhere by then."""
    linear = unet[0].linear
    linear.ldm_patched_cast_weights, linear.ldm_patched_patched_weights = False, True
    with given_back([unet], but=pipeline(unet).books):
        linear.prev_ldm_patched_cast_weights, linear.ldm_patched_cast_weights = False, True
        linear.ldm_patched_patched_weights = False
        linear.weight = there = nn.Parameter(torch.zeros(4, 4))
    assert (linear.prev_ldm_patched_cast_weights, linear.ldm_patched_cast_weights) == (False, True)
    assert linear.ldm_patched_patched_weights is False and linear.weight is there
