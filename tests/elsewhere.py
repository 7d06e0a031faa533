"""A device that is not the CPU, pretended: it computes as the CPU does, and its tensors refuse to meet the CPU's.

So a test without an accelerator sees what only shows on one: a tensor left behind, a model that was not moved back, a
wait for the device at each step. torch knows the device "lazy" by name and has nothing behind it; here `Elsewhere`,
a tensor that says it is there, holds one of the CPU's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("lazy", 0)
CPU = torch.device("cpu")
aten = torch.ops.aten
CROSSING = (aten._to_copy.default, aten.copy_.default)  # the ways from one device to another
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)  # a GPU's too take the CPU's


class Elsewhere(Tensor):
    """Says that it is on `DEVICE`."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        if here.dtype == torch.float64:
            raise TypeError(f"{DEVICE} has no float64, as Apple's MPS has none")
        return Tensor._make_wrapper_subclass(
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=DEVICE
        )

    def __init__(self, here: Tensor):
        self.here = here

    # torch's own subclasses set and override these in the same way; its annotations are of the base class only
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _computed(call, args, kwargs or {}, [])


class _Pretended(TorchDispatchMode):
    """Sees what makes new tensors, and keeps count of what makes the CPU wait."""

    def __init__(self, waits: list[str]):
        super().__init__()  # type: ignore[no-untyped-call]  # torch annotates it nowhere
        self.waits = waits

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(call, args, kwargs or {}, self.waits)


@contextmanager
def pretended() -> Iterator[list[str]]:
    """Within, and in this thread, there is such a device; the list names each call that waited for it."""
    waits: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "lazy", SimpleNamespace(_initialized=False), raising=False)  # `checkpoint` asks for it
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=DEVICE) makes it here, then moves it
        try:
            with _Pretended(waits):
                yield waits
        finally:
            torch._C._set_only_lift_cpu_tensors(False)


def _computed(call: Any, args: Sequence[Any], kwargs: Mapping[str, Any], waits: list[str]) -> Any:
    """The result of a call on the CPU, there if anything of it was; refuses tensors of both kinds."""
    if call is aten._has_compatible_shallow_copy_type.default:
        return False  # so that a module that is moved gets new parameters
    tensors = _tensors(args) + _tensors(kwargs.values())
    there = [value for value in tensors if isinstance(value, Elsewhere)]
    wanted = kwargs.get("device") or next((value for value in args if isinstance(value, torch.device)), None)
    if not there and (wanted is None or wanted.type != DEVICE.type):
        return call(*args, **kwargs)
    if there:
        _refuse_strangers(call, args, tensors)
    stays = wanted is None or wanted.type == DEVICE.type
    if call is aten.copy_.default:
        stays = isinstance(args[0], Elsewhere)
    crossing = _Crossing(stays)
    result = call(
        *_each(crossing.fetched, args), **{key: _each(crossing.fetched, value) for key, value in kwargs.items()}
    )
    if stays and any(value.ndim for value in tensors if not isinstance(value, Elsewhere)):
        waits.append(f"{call}, an upload")
    elif there and (not stays or not _tensors([result])):
        waits.append(str(call))
    return _each(crossing.sent, result)


class _Crossing:
    """Brings what a call is given here, and what it returns back there."""

    def __init__(self, stays: bool):
        self.stays = stays  # whether the result is there
        self.known: dict[int, Elsewhere] = {}

    def fetched(self, value: Any) -> Any:
        if isinstance(value, torch.device):
            return CPU
        if not isinstance(value, Elsewhere):
            return value
        self.known[id(value.here)] = value
        return value.here

    def sent(self, value: Any) -> Any:
        """What was changed in place stays the tensor that it was."""
        if not isinstance(value, Tensor) or not self.stays:
            return value
        return self.known[id(value)] if id(value) in self.known else Elsewhere(value)


def _refuse_strangers(call: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """Raises what torch raises for tensors of two devices."""
    if call in CROSSING or (call in INDEXING and isinstance(args[0], Elsewhere)):
        return
    strangers = [tuple(value.shape) for value in tensors if not isinstance(value, Elsewhere) and value.ndim]
    if strangers:
        raise RuntimeError(f"{call}: expected all tensors on one device, found {DEVICE} and cpu {strangers}")


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """Also those in lists and tuples; written for speed, for each operator comes by here."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """The same lists and tuples of what is changed one by one."""
    if isinstance(value, (list, tuple)):
        return type(value)(_each(change, one) for one in value)
    return change(value)
