"""How many latents or contexts go through a model together: as many as are asked for, or as there is memory for.

How much a context takes is measured, and how much a latent does is known from the U-Net's shapes. The numbers are from
Stable Diffusion 1.5 and XL in their real shapes (docs/benchmarks.md, *Memory*), rounded up. Where they are too small
memory runs out, and the work is halved.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from embedding_estimate.model.host import BorrowedModel

USUAL = 4  # latents or contexts in a learning step, and in a pass where the device does not tell its free memory
MOST = 32  # more save no time
SHARE = 1 / 2  # of the free memory: passes need room for a moment, and others use the device too

# numbers in the U-Net's precision, for each latent cell and each channel of the U-Net's narrowest cross-attention
PASSING = 32  # that a pass takes
KEEPING = 320  # that are kept for a backward pass
CHECKPOINTING = 100  # the same with checkpoints


@dataclass(frozen=True)
class Together:
    """Latents that are passed back together."""

    latents: int
    checkpointed: bool


def usual(batch: int) -> int:
    """The latents or contexts of a learning step, on which the result depends."""
    return batch or USUAL


def without_gradients(model: BorrowedModel, batch: int) -> int:
    """The batch of work of which no part needs gradients: twice as many fit; 0 where the memory says how many."""
    return 2 * usual(batch) if batch or model.free_memory() is None else 0


def passing(model: BorrowedModel, batch: int, cells: int, most_cells: int) -> int:
    """How many latents of so many cells to pass through the U-Net together, without gradients.

    `batch` is what is asked for, 0 for as many as fit. `most_cells` bound what is asked for, and the usual number where
    the model tells no free memory.
    """
    free = None if batch else model.free_memory()
    if free is None:
        return max(1, min(usual(batch), most_cells // cells))
    return max(1, _that_fit(model, free, cells, PASSING))


def keeping(model: BorrowedModel, batch: int, cells: int, most_cells: int, *, checkpointed: bool) -> Together:
    """How many to pass back together. Latents of more than `most_cells`, or of more than fit, take checkpoints; so do
    all where they are asked for."""
    free = None if batch else model.free_memory()
    if free is None:
        return Together(max(1, min(usual(batch), most_cells // cells)), checkpointed or cells > most_cells)
    whole = 0 if checkpointed else _that_fit(model, free, cells, KEEPING)
    return Together(whole, False) if whole else Together(max(1, _that_fit(model, free, cells, CHECKPOINTING)), True)


def contexts(model: BorrowedModel, batch: int, one: Callable[[], Any]) -> int:
    """How many contexts to read and pass back together, where the result does not depend on it.

    `one` computes what is passed back for one context.
    """
    free = None if batch else model.free_memory()
    return usual(batch) if free is None else max(1, min(MOST, int(SHARE * free) // max(1, kept(one))))


def kept(call: Callable[[], Any]) -> int:
    """Bytes that autograd keeps for the backward pass of a call. What was there before, as weights, does not count."""
    there = {_place(value) for value in gc.get_objects() if issubclass(type(value), Tensor)}
    sizes: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        if (place := _place(value)) not in there:
            sizes[place] = value.untyped_storage().nbytes()
        return value

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda value: value):
        result = call()  # held until all is counted
    del result
    return sum(sizes.values())


def _place(value: Tensor) -> int:
    return value.untyped_storage().data_ptr() if value.layout == torch.strided and not value.is_meta else 0


def _that_fit(model: BorrowedModel, free: int, cells: int, numbers: int) -> int:
    """A power of two, so that it changes little with the memory, or 0."""
    weights = [cast(Tensor, attention.to_q.weight) for attention in model.cross_attentions()]
    narrowest = min(weights, key=lambda weight: weight.shape[1])  # (H * d, channels)
    of_one = cells * numbers * narrowest.shape[1] * narrowest.element_size()
    fit = min(MOST, int(SHARE * free) // of_one)
    return 1 << fit.bit_length() - 1 if fit else 0
