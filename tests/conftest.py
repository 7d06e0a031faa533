import asyncio
from collections.abc import Iterator

import pytest
from toy import ToyHost, ToyModel


@pytest.fixture
def toy_host() -> ToyHost:
    return ToyHost()


@pytest.fixture
def toy(toy_host: ToyHost) -> ToyModel:
    return toy_host.model


@pytest.fixture
def event_loop() -> Iterator[None]:
    """For who builds a page: gradio would open a loop and never close it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)
