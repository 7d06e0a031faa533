import asyncio
import os
from collections.abc import Iterator

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the command line does

import pytest
from toy import ToyHost, ToyModel


@pytest.fixture
def toy_host() -> ToyHost:
    return ToyHost()


@pytest.fixture
def toy(toy_host: ToyHost) -> ToyModel:
    return toy_host.model


@pytest.fixture
def event_loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For who builds a page: gradio opens event loops and closes none."""
    made: list[asyncio.AbstractEventLoop] = []
    new = asyncio.new_event_loop

    def noted() -> asyncio.AbstractEventLoop:
        made.append(new())
        return made[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", noted)
    yield
    for loop in made:
        loop.close()
    asyncio.set_event_loop(None)
