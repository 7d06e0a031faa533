import asyncio
import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def swept() -> Iterator[None]:
    """gradio leaves event loops behind; they go while the filter of the module's tests ignores the warnings."""
    yield
    asyncio.set_event_loop(None)
    gc.collect()
