"""Cross-attentions of diffusers, LDM, sgm and their descendants, which all use the same names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from embedding_estimate.hosts.precision import GradientScale

Precision = Callable[[], AbstractContextManager[Any]]
Contexts = Callable[[Tensor], "tuple[Tensor, Tensor]"]
BLOCK = "attn2"  # of a transformer block: the attention that reads the context; `attn1` reads the state itself


def twice(context: Tensor) -> tuple[Tensor, Tensor]:
    """The same context for keys and values."""
    return context, context


class AttentionLayer:
    """`host.CrossAttention` over a module with `to_q`, `to_k`, `to_v` and `to_out`.

    The module's output is never used, so any implementation of attention may be switched on.
    """

    def __init__(
        self,
        module: Any,
        precision: Precision = nullcontext,
        contexts: Contexts = twice,
        computes_in: torch.dtype | None = None,
    ):
        """
        Args:
            module: A cross-attention of the U-Net.
            precision: Gives the context manager that the host calls the module in, such as autocast.
            contexts: Makes the contexts for the keys and for the values.
            computes_in: The precision that the host computes in, or None where it is that of the weights.
        """
        self.to_q: nn.Module = module.to_q
        self.to_out: nn.Module = module.to_out[0]
        self.heads: int = module.heads
        self._to_k, self._to_v = module.to_k, module.to_v
        self._precision, self._contexts = precision, contexts
        weight = module.to_k.weight
        own = torch.float16 if weight.element_size() == 1 else weight.dtype  # those of a byte are used as fp16
        self._dtype: torch.dtype = computes_in or own

    def read(self, context: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self._dtype
        scale = GradientScale() if dtype == torch.float16 else None
        widened = dtype == torch.bfloat16
        if widened:
            dtype = torch.float32
        with self._precision():
            for_keys, for_values = self._contexts(scale.leave(context) if scale else context)
            keys = for_keys.to(dtype)
            values = keys if for_values is for_keys else for_values.to(dtype)
            pairs = ((self._to_k, keys), (self._to_v, values))
            projected = [_projected_in_fp32(*pair) if widened else pair[0](pair[1]) for pair in pairs]
            both = torch.cat(projected, dim=-1).float()  # (1, L, 2 * H * d)
        read_keys, read_values = (scale.enter(both) if scale else both).chunk(2, dim=-1)
        return read_keys, read_values


def _projected_in_fp32(module: nn.Module, context: Tensor) -> Tensor:
    """Keys or values (1, L, H * d) of a context (1, L, C) by a module in bf16, whose 8 bits are steps that end a line
    search.

    Its weights are widened once more for the gradient: kept, SDXL's would take 1.4 GB.
    """

    def widened(context: Tensor) -> Any:
        return functional_call(module, {key: p.float() for key, p in module.named_parameters()}, (context,))

    projected: Tensor = checkpoint(widened, context, use_reentrant=False, preserve_rng_state=False)
    return projected


def cross_attentions(
    unet: nn.Module,
    precision: Precision = nullcontext,
    contexts: Contexts = twice,
    computes_in: torch.dtype | None = None,
) -> list[AttentionLayer]:
    """The cross-attentions of a U-Net; see `AttentionLayer` for the arguments."""
    modules = [module for name, module in unet.named_modules() if name.endswith(f".{BLOCK}")]
    return [AttentionLayer(module, precision, contexts, computes_in) for module in modules]
