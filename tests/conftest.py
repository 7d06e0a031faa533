import pytest
from toy import ToyHost, ToyModel


@pytest.fixture
def toy_host() -> ToyHost:
    return ToyHost()


@pytest.fixture
def toy(toy_host: ToyHost) -> ToyModel:
    return toy_host.model
