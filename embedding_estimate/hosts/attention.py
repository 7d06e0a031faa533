"""Cross-attentions as diffusers, LDM, sgm and their descendants write them: with the same names in all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from embedding_estimate.hosts.precision import GradientScale

BLOCK = "attn2"  # of a transformer block: the attention that reads the context; `attn1` reads the state itself


class AttentionLayer:
    """`host.CrossAttention` over a module with `to_q`, `to_k`, `to_v` and `to_out`.

    The output is never asked of the module, so it does not matter which implementation of attention is switched on.
    """

    def __init__(self, module: Any, precision: Callable[[], AbstractContextManager[Any]] = nullcontext):
        """`precision` gives the context in which the host calls the module, autocast for one."""
        self.to_q: nn.Module = module.to_q
        self.to_out: nn.Module = module.to_out[0]
        self.heads: int = module.heads
        self._to_k, self._to_v, self._precision = module.to_k, module.to_v, precision

    def read(self, context: Tensor) -> tuple[Tensor, Tensor]:
        with self._precision():
            return self._through(self._to_k, context), self._through(self._to_v, context)

    @staticmethod
    def _through(projection: Any, context: Tensor) -> Tensor:
        dtype = projection.weight.dtype
        if dtype != torch.float16:
            return projection(context.to(dtype)).float()  # type: ignore[no-any-return]
        scale = GradientScale()
        return scale.enter(projection(scale.leave(context).to(dtype)).float())


def cross_attentions(
    unet: nn.Module, precision: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> list[AttentionLayer]:
    """Those of a U-Net."""
    return [AttentionLayer(module, precision) for name, module in unet.named_modules() if name.endswith(f".{BLOCK}")]
