"""A model lent for one job comes back as it was."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def given_back(modules: Sequence[nn.Module], *, but: tuple[str, ...] = ()) -> Iterator[None]:
    """Puts back every attribute of every submodule (mode, hooks, replaced methods) and what parameters carry.

    Attributes whose name begins with one of `but` are somebody else's books, and stay as they are by then.
    """
    parts = [part for module in modules for part in module.modules()]
    attributes = [dict(vars(part)) for part in parts]
    tables = [{key: value.copy() for key, value in own.items() if _is_table(value)} for own in attributes]
    parameters = [(p, p.requires_grad, p.grad) for module in modules for p in module.parameters()]
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
        for parameter, requires_grad, gradient in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


def _is_table(value: Any) -> bool:
    """Hooks, parameters, buffers and submodules are in plain dictionaries; configurations are in frozen ones."""
    return type(value) in (dict, OrderedDict)


@contextmanager
def random_states_kept(device: torch.device) -> Iterator[None]:
    """Within, whatever draws random numbers changes nothing for who comes after, on the CPU and on that device."""
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
    """Within, torch computes on so many threads of the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
