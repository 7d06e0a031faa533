"""How often faults are tried: a few times in a plain run, as docs/reliability.md reports it with `--long`."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="Try faults as often as docs/reliability.md reports.")


@pytest.fixture
def times(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """The first of two numbers, or the second with `--long`."""
    long = request.config.getoption("--long", default=False)
    return lambda few, many: many if long else few
