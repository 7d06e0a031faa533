from __future__ import annotations

import torch
from shaking import shaken
from torch import nn

from embedding_estimate.hosts.attention import AttentionLayer


def test_what_is_in_bf16_is_read_in_fp32() -> None:
    """A reading in bf16 would have steps of a 256th, on which a line search ends."""
    torch.manual_seed(shaken(0))
    module = nn.Module()
    module.heads = 2
    module.to_q, module.to_k, module.to_v = nn.Linear(4, 8), nn.Linear(6, 8, bias=False), nn.Linear(6, 8)
    module.to_out = nn.ModuleList([nn.Linear(8, 4)])
    module.to(torch.bfloat16)
    context = torch.randn(1, 5, 6, requires_grad=True)
    found = AttentionLayer(module).read(context)  # 2 of (1, 5, 8)
    expected = (
        context @ module.to_k.weight.float().T,
        context @ module.to_v.weight.float().T + module.to_v.bias.float(),
    )
    rounding = (expected[0].to(torch.bfloat16) - expected[0]).abs().max()
    assert rounding > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    losses = [sum(part.square().sum() for part in each) for each in (found, expected)]
    ours, theirs = (torch.autograd.grad(loss, context) for loss in losses)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


class CastInEachCall(nn.Linear):
    """In half precision, and computed with in that of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


def test_a_context_is_read_in_the_precision_that_the_host_computes_in() -> None:
    torch.manual_seed(shaken(0))
    module = nn.Module()
    module.heads = 2
    module.to_q, module.to_k, module.to_v = nn.Linear(4, 8), CastInEachCall(6, 8), CastInEachCall(6, 8)
    module.to_out = nn.ModuleList([nn.Linear(8, 4)])
    module.half().requires_grad_(False)
    context = torch.randn(1, 5, 6)
    keys, values = AttentionLayer(module, computes_in=torch.float32).read(context)
    assert torch.equal(keys, module.to_k(context)) and torch.equal(values, module.to_v(context))
    rounded, _ = AttentionLayer(module).read(context)
    assert float((rounded - keys).abs().max()) > 1e-5
