from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the standalone host needs the package's 'app' extra")

import torch
from hosts.contract import HostContract
from torch import nn

from embedding_estimate.demo.random_models import Family
from embedding_estimate.hosts.lending import threads
from embedding_estimate.hosts.standalone import host as host_module
from embedding_estimate.hosts.standalone.host import StandaloneHost

FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl")
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def combined() -> Iterator[Any]:
    for device in DEVICES:
        for family in FAMILIES:
            slow = [] if family == "sdxl" else [pytest.mark.slow]  # the stand-ins of WebUIs have SD1
            yield pytest.param((family, device), id=f"{family}-{device}", marks=slow)


@pytest.fixture(scope="module", params=combined())
def loaded(request: pytest.FixtureRequest, random_folder: Callable[[Family], Path]) -> Iterator[StandaloneHost]:
    """In fp32 throughout: cuDNN's convolutions would round to 10 bits, differently from one batch size to another."""
    family, device = request.param
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield StandaloneHost.load(random_folder(family), device=device, dtype=torch.float32)
    torch.backends.cudnn.allow_tf32 = before


class TestStandaloneHost(HostContract):
    @pytest.fixture
    def host(self, loaded: StandaloneHost) -> StandaloneHost:
        return loaded

    @pytest.fixture
    def modules(self, host: StandaloneHost) -> Sequence[nn.Module]:
        return host.modules


@pytest.mark.slow
def test_importing_the_host_imports_none_of_the_heavy_libraries() -> None:
    heavy = ("diffusers", "transformers", "torchsde", "scipy", "yaml")
    script = f"import sys, embedding_estimate.hosts.standalone.host; print([n for n in {heavy} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_small_model_computes_on_one_thread(
    random_folder: Callable[[Family], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = StandaloneHost.load(random_folder("sd1"), device="cpu")
    with threads(2):
        with host.borrow():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        monkeypatch.setattr(host_module, "SMALL", 8)
        with host.borrow():
            assert torch.get_num_threads() == 2


def test_what_only_a_webui_reads_is_told(random_folder: Callable[[Family], Path]) -> None:
    with StandaloneHost.load(random_folder("sd1"), device="cpu").borrow() as model:
        network, comment = model.notes("a <lora:oil:0.8> circle # or a square\non red")
        assert network.startswith("<lora:oil:0.8> is read as plain words here, but not in a WebUI: leave it out")
        assert comment.startswith("# or a square is read")
        assert model.notes("a (red:1.5) <circle>") == []


@pytest.mark.parametrize(("family", "heeded"), [("sd1", 2), ("sdxl", 1)])
def test_a_clip_skip_is_told_where_it_does_something(
    random_folder: Callable[[Family], Path], family: Family, heeded: int
) -> None:
    with StandaloneHost.load(random_folder(family), device="cpu", clip_skip=2).borrow() as model:
        assert model.info.clip_skip == heeded
        ignored = ["clip skip 2 has no effect in SDXL, as in a WebUI: leave it out"]
        assert model.notes("a circle") == (ignored if heeded == 1 else [])
