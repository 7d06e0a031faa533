"""What an estimate costs: its plumbing and its gates. How long anything takes is not tested."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from shaking import shaken
from suites import reads_proc
from toy import ToyHost

from benchmarks import cost as module
from benchmarks.cost import Case, Cost, Extent, Row, StageMeter, cases, cost, main, summarise
from embedding_estimate.demo.random_models import random_model
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.hosts.standalone.loading import LoadedModel, load
from embedding_estimate.model.meter import Passes

CASE = Case("tiny", "Attention", 4, 16, 16)
ROW = Row(
    CASE,
    "cpu",
    steps=10,
    stages={
        "prepare": Cost(Passes(100, 40), 8.0, 90.0),
        "train": Cost(Passes(), 2.0, 60.0),
        "measure": Cost(Passes(300), 9.0, 400.0),
    },
    image=Cost(Passes(4), 1.0, 75.0),
)


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(random_model(request.param, tmp_path_factory.mktemp("model"), seed=shaken(0)), device="cpu")


@reads_proc
@pytest.mark.slow
@pytest.mark.parametrize("part", ["Attention", "U-Net"])
def test_a_row_counts_what_the_estimate_counts(loaded: LoadedModel, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODELS", {"tiny": lambda device: loaded})
    case, extent = Case("tiny", part, 2, 5, 8), Extent(3, 2, "Nothing")
    row = cost(case, extent, "cpu")
    counted = estimate(case.settings(extent), StandaloneHost.of(loaded))
    assert {stage: one.passes for stage, one in row.stages.items()} == vars(counted.passes)
    assert row.steps == counted.steps == 3 and row.image.passes == Passes(2 * 2)
    assert min(row.stages["prepare"].seconds, row.stages["train"].seconds, row.image.seconds) > 0


def test_seconds_and_memory_are_those_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is looked at when the meter is made and at both ends of each stage, and peaks that are read there:
    of the time before and after a stage, and within it."""
    times, peaks = iter([0.0, 1.0, 4.0, 9.0, 25.0]), iter([20, 70, 30, 50])
    monkeypatch.setattr(module, "in_use", lambda device: 10)
    monkeypatch.setattr(module, "forget_peak", lambda device: None)
    monkeypatch.setattr(module, "peak", lambda device: next(peaks) * 2**20 + 10)
    monkeypatch.setattr(module.time, "process_time", lambda: next(times))
    with ToyHost().borrow() as model:
        meter = StageMeter(model)
        with meter.stage("train"), meter.stage("prepare"):
            pass
    assert meter.seconds == {"prepare": 1.0 + 5.0, "train": 3.0 + 16.0, "measure": 0.0}
    assert (meter.cost("prepare").mib, meter.cost("train").mib) == (30.0, 70.0)


def test_each_case_differs_from_the_base_in_one_thing() -> None:
    made = cases(["a", "b"], ["Attention"], [4, 16], [16, 64, 150], [8], ["Quick", "Thorough"])
    base = Case("a", "Attention", 4, 16, 8, "Quick")
    assert made == [
        base,
        replace(base, model="b"),
        replace(base, tokens=16),
        replace(base, prompt_tokens=64),
        replace(base, prompt_tokens=150),
        replace(base, effort="Thorough"),
    ]
    assert made[-1].settings(Extent(3, 2, "Nothing")).effort == "Thorough"


@pytest.mark.parametrize("tokens", [1, 7, 150])
def test_a_prompt_has_as_many_tokens_as_it_is_to_have(loaded: LoadedModel, tokens: int) -> None:
    text = Case("tiny", "Attention", 2, tokens, 8).settings(Extent(3, 2, "Nothing")).text
    with StandaloneHost.of(loaded).borrow() as model, torch.no_grad():
        assert len(model.token_weights(text)) == tokens


def test_gates() -> None:
    """Memory is 90 of 75 MiB, 1.2 of a picture's; a step of the long prompt 0.3 s, 1.5 of the base's; four times the
    pixels are prepared in four times the time, and a U-Net part may take twice a picture's memory."""
    long = replace(ROW, case=replace(CASE, prompt_tokens=64))
    long = replace(long, stages={**ROW.stages, "train": Cost(Passes(), 3.0, 160.0)})
    large = replace(ROW, case=replace(CASE, latent=32))
    large = replace(large, stages={**ROW.stages, "prepare": Cost(Passes(100, 40), 32.0, 140.0)})
    unet = replace(large, case=replace(CASE, part="U-Net"))
    gates = summarise([ROW, long, large, unet])["gates"]
    assert [(gate["figure"], gate["value"], gate["reached"]) for gate in gates] == [
        ("memory of a picture's", pytest.approx(1.2), True),
        ("memory of a picture's", pytest.approx(160 / 75), False),
        ("memory of a picture's", pytest.approx(140 / 75), False),
        ("memory of a picture's", pytest.approx(140 / 75), True),
        ("a step of the base's", pytest.approx(1.5), False),
        ("preparing of the base's, by pixels", pytest.approx(1.0), True),
    ]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--models", "small-sd1,magic", "magic: choose from small-sd1, small-sdxl, sd15, sdxl"),
        ("--parts", "Magic", "Magic: choose from"),
        ("--efforts", "Balanced,lazy", "lazy: choose from Quick, Balanced, Thorough"),
        ("--tokens", "4,x", "4,x: give whole numbers with commas"),
        ("--latents", "0", "0: give numbers of at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(option: str, value: str, expected: str) -> None:
    result = CliRunner().invoke(main, [option, value])
    assert result.exit_code == 2 and expected in " ".join(result.output.split())
