"""Something of the WebUI's, replaced for the moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of an object, replaced for the moment; what it had from its class it has again."""
    own = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def put_off(owner: Any, name: str) -> Iterator[None]:
    """Within, calls of an object's function do nothing and return None. The last one, if any, is made at the end."""
    function = getattr(owner, name)
    calls: list[Callable[[], Any]] = []
    try:
        with replaced(owner, name, lambda *arguments, **named: calls.append(partial(function, *arguments, **named))):
            yield
    finally:
        if calls:
            calls[-1]()
