"""torch is imported where it is used, so that the process that only shares out the tests need not wait for it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the command line does
os.environ.setdefault("OMP_NUM_THREADS", "1")  # all is too small here to be shared among threads

import pytest
from shaking import SHAKE

with suppress(ImportError):  # it is not there in a WebUI
    from hypothesis import settings

    for profile, examples in (("quick", 25), ("thorough", 400)):  # the latter by --hypothesis-profile=thorough
        settings.register_profile(
            profile,
            max_examples=examples,
            deadline=None,  # whatever else the machine does fails no test
            derandomize=settings().derandomize and not SHAKE,  # where it would not heed a seed
        )
    settings.load_profile("quick")

if TYPE_CHECKING:
    from toy import ToyHost, ToyModel

    from embedding_estimate.demo.random_models import Family


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite takes all cores, up to eight, for each process takes a gigabyte; what is named runs in one."""
    if SHAKE:
        config.option.hypothesis_seed = str(SHAKE)
    if config.args != config.getini("testpaths"):
        return
    shares_out = config.pluginmanager.hasplugin("xdist") and not hasattr(config, "workerinput")
    if shares_out and config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = min(os.cpu_count() or 1, 8), "worksteal"


def pytest_collection_finish() -> None:
    """A million objects of modules and of tests stay from here on: the garbage collector and those who walk through
    all objects, as a dry run does, need not look at them again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    import torch

    torch.manual_seed(SHAKE)  # before each, so that a test alone draws what it draws among all


@pytest.fixture
def toy_host() -> ToyHost:
    from toy import ToyHost

    return ToyHost()


@pytest.fixture
def toy(toy_host: ToyHost) -> ToyModel:
    return toy_host.model


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    """(family) -> the folder of a tiny random model, which is made once: who changes it takes a copy."""
    from shaking import shaken

    from embedding_estimate.demo.random_models import random_model

    made: dict[Family, Path] = {}

    def folder(family: Family) -> Path:
        if family not in made:
            made[family] = random_model(family, tmp_path_factory.mktemp("models") / family, seed=shaken(0))
        return made[family]

    return folder


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """For who looks at what becomes of figures and not at their values: a protocol of a few states."""
    from embedding_estimate.fidelity import among_words, protocol, quick

    monkeypatch.setattr(protocol, "TRAJECTORY", replace(protocol.TRAJECTORY, steps=3))
    monkeypatch.setattr(protocol, "SEEDS", protocol.SEEDS[:1])
    monkeypatch.setattr(among_words, "TRAJECTORY", replace(among_words.TRAJECTORY, steps=2))
    monkeypatch.setattr(quick, "ALONE_AT", (0,))
    monkeypatch.setattr(quick, "CONTEXTS_AT", (1,))
    monkeypatch.setattr(quick, "PICTURES", replace(quick.PICTURES, steps=2))


@pytest.fixture
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """For who looks at what becomes of the trials of a typed weight, and not at which weight is found."""
    from embedding_estimate.training import name_weight

    monkeypatch.setattr(name_weight, "GRID", (0.9, 1.2))
    monkeypatch.setattr(name_weight, "TRIAL_STEPS", 5)


@pytest.fixture
def signals() -> Iterator[None]:
    """As in a terminal. What runs the tests in the background may ignore them, which processes inherit."""
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if sys.platform != "win32":
        own[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def event_loops() -> Iterator[None]:
    """For who builds a page: gradio opens event loops and closes none."""
    made: list[asyncio.AbstractEventLoop] = []
    new = asyncio.new_event_loop

    def noted() -> asyncio.AbstractEventLoop:
        made.append(new())
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "new_event_loop", noted)
        yield
    for loop in made:
        loop.close()
    asyncio.set_event_loop(None)
