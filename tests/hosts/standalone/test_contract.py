from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

pytest.importorskip("diffusers", reason="the standalone host needs the package's 'app' extra")

import torch
from hosts.contract import HostContract
from torch import nn

from embedding_estimate.demo.random_models import Family, random_model
from embedding_estimate.hosts.lending import threads
from embedding_estimate.hosts.standalone import host as host_module
from embedding_estimate.hosts.standalone.host import StandaloneHost


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, StandaloneHost]:
    families: tuple[Family, ...] = ("sd1", "sd2", "sdxl")
    folders = {family: random_model(family, tmp_path_factory.mktemp("models") / family) for family in families}
    return {family: StandaloneHost.load(folder, device="cpu") for family, folder in folders.items()}


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
class TestStandaloneHost(HostContract):
    @pytest.fixture
    def host(self, hosts: dict[Family, StandaloneHost], family: Family) -> StandaloneHost:
        return hosts[family]

    @pytest.fixture
    def modules(self, host: StandaloneHost) -> Sequence[nn.Module]:
        return host.modules


def test_importing_the_host_imports_none_of_the_heavy_libraries() -> None:
    heavy = ("diffusers", "transformers", "torchsde", "scipy", "yaml")
    script = f"import sys, embedding_estimate.hosts.standalone.host; print([n for n in {heavy} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_small_model_computes_on_one_thread(
    hosts: dict[Family, StandaloneHost], monkeypatch: pytest.MonkeyPatch
) -> None:
    with threads(2):
        with hosts["sd1"].borrow():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        monkeypatch.setattr(host_module, "SMALL", 8)
        with hosts["sd1"].borrow():
            assert torch.get_num_threads() == 2
