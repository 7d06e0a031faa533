"""Gives back a model that was lent for one job, as it was."""

from __future__ import annotations

import random
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def given_back(modules: Sequence[nn.Module], *, but: tuple[str, ...] = ()) -> Iterator[None]:
    """Restores every attribute of every submodule (mode, hooks, replaced methods) and what parameters carry.

    Attributes whose names begin with one of `but` belong to somebody else and stay as they are.
    """
    parts = [part for module in modules for part in module.modules()]
    attributes = [{key: value for key, value in vars(part).items() if not key.startswith(but)} for part in parts]
    tables = [{key: value.copy() for key, value in own.items() if _is_table(value)} for own in attributes]
    # by weak references, for who moves weights may put others in their place, and these would be kept beside them
    parameters = [(weakref.ref(p), p.requires_grad, p.grad) for module in modules for p in module.parameters()]
    try:
        yield
    finally:
        for part, own, held in zip(parts, attributes, tables, strict=True):
            others = {key: value for key, value in vars(part).items() if key.startswith(but)}
            vars(part).clear()
            vars(part).update(own | others)
            for key, table in held.items():  # the same dictionaries as before: handles of hooks refer to them
                own[key].clear()
                own[key].update(table)
        for reference, requires_grad, gradient in parameters:
            if (parameter := reference()) is not None:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient


def _is_table(value: Any) -> bool:
    """Whether this is a table of hooks, parameters, buffers or submodules: those are plain dictionaries, configurations
    are frozen ones."""
    return type(value) in (dict, OrderedDict)


@contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """While active, drawing random numbers on the CPU or on this device does not change the global random states."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    there: dict[str, tuple[Any, Any]] = {
        "cuda": (lambda: torch.cuda.get_rng_state(device), lambda state: torch.cuda.set_rng_state(state, device)),
        "mps": (torch.mps.get_rng_state, torch.mps.set_rng_state),
    }
    read, write = there.get(device.type, (lambda: None, lambda state: None))
    own = read()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        write(own)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """While active, torch computes on this many threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
