"""Which tests and which of their cases run where."""

import sys
from collections.abc import Iterable
from typing import Any

import pytest

reads_proc = pytest.mark.skipif(sys.platform != "linux", reason="/proc, which resident sets are read from, is Linux's")


def quick_first(quick: int, cases: Iterable[Any]) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`: the first `quick` of them in the quick suite, the others marked slow.

    A case of several values is a tuple. Of parametrizations that are stacked, those combinations run in the quick
    suite whose parts all do.
    """
    every = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=[pytest.mark.slow] if place >= quick else []) for place, case in enumerate(every)]
