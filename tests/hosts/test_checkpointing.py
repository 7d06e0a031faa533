"""A network that is computed again for its backward pass."""

from __future__ import annotations

import torch
from shaking import shaken
from torch import Tensor, nn

from embedding_estimate.hosts.checkpointing import checkpointed


class BasicTransformerBlock(nn.Module):
    """Adds to its input in place, as Forge's."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x += self.inner(x.clone()).tanh()
        return x


def gradient(network: nn.Module) -> Tensor:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(shaken(1)), requires_grad=True)
    return torch.autograd.grad(network(x * 2).square().sum(), x)[0]


def test_blocks_may_add_to_their_input_in_place() -> None:
    torch.manual_seed(shaken(0))
    network = nn.Sequential(BasicTransformerBlock(), BasicTransformerBlock())
    plain = gradient(network)
    with checkpointed(network):
        torch.testing.assert_close(gradient(network), plain)


def test_what_is_so_already_is_not_done_twice() -> None:
    network = nn.Sequential(BasicTransformerBlock())
    with checkpointed(network):
        once = network[0].forward
        with checkpointed(network):
            assert network[0].forward is once
        assert network[0].forward is once
    assert "forward" not in vars(network[0])
