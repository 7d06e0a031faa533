"""Gradient checkpointing: less memory in a backward pass, for more time (Chen et al. 2016)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BLOCKS = (
    *("BasicTransformerBlock", "ResnetBlock2D", "ResBlock"),  # U-Nets of diffusers, LDM, sgm and their descendants
    "CLIPEncoderLayer",  # text encoders of transformers
)


@contextmanager
def checkpointed(
    network: nn.Module, precision: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Iterator[None]:
    """`host.BorrowedModel.checkpointed` of a U-Net, and the same of a text encoder.

    `precision` gives what the host runs it in, autocast for one.
    """
    blocks: list[Any] = [block for block in network.modules() if _is_block(block) and not _is_checkpointed(block)]
    before = [vars(block).get("forward") for block in blocks]  # a host may have put one in
    for block in blocks:
        block.forward = functools.partial(_recomputed, block.forward, precision)
    try:
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward


def _is_block(module: nn.Module) -> bool:
    return any(base.__name__ in BLOCKS for base in type(module).__mro__)


def _is_checkpointed(block: Any) -> bool:
    """Whether it is so already, which a host may need for reasons of its own."""
    return getattr(block.forward, "func", None) is _recomputed


def _recomputed(
    forward: Callable[..., Any], precision: Callable[[], AbstractContextManager[Any]], *arguments: Any, **named: Any
) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)

    def run(hidden: Tensor, *arguments: Any, **named: Any) -> Any:
        with precision():  # here and not by `context_fn`, which torch 2.0 has not
            return forward(hidden.clone(), *arguments, **named)  # some blocks add to it in place

    return checkpoint(run, *arguments, use_reentrant=False, **named)
