"""The memory benchmark: its plumbing, and that a peak is seen after it has passed."""

from __future__ import annotations

import gc

import pytest
import torch
from click.testing import CliRunner
from shaking import shaken
from suites import reads_proc

from benchmarks import memory
from benchmarks.memory import IMAGE, MIB, main, measure
from embedding_estimate.demo.random_models import random_model
from embedding_estimate.hosts.standalone.loading import LoadedModel, load
from embedding_estimate.settings import PARTS

pytestmark = pytest.mark.tools

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(random_model(request.param, tmp_path_factory.mktemp("model"), seed=shaken(0)), device=CPU)


@reads_proc
@pytest.mark.slow
@pytest.mark.parametrize("job", [IMAGE, *PARTS])
def test_every_job_runs(loaded: LoadedModel, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SHAPES", {"tiny": lambda device: loaded})
    row = measure("tiny", job, 8, 4, "cpu")
    assert (row.shape, row.latent, row.dtype, row.device, row.job) == ("tiny", "8x8", "float32", "cpu", job)
    assert row.batch == (None if job == IMAGE else 4)
    assert row.model_mib > 0 and row.peak_mib >= 0


@reads_proc
def test_a_peak_that_has_passed_is_seen_and_forgotten() -> None:
    gc.collect()  # what other tests have left would go in between
    memory.forget_peak(CPU)
    before = memory.peak(CPU)
    size = 64 * MIB
    del (large := [torch.ones(size // 4)])[0]
    assert not large and memory.peak(CPU) - before > 0.9 * size
    memory.forget_peak(CPU)
    assert memory.peak(CPU) - before < 0.5 * size


def test_an_unknown_job_is_refused() -> None:
    result = CliRunner().invoke(main, ["--jobs", "image,magic"])
    assert result.exit_code == 2 and "magic" in result.output
