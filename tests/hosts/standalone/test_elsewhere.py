"""The standalone host and whole estimates on a device that is not the CPU."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from shaking import shaken

pytest.importorskip("diffusers", reason="the standalone host needs the package's 'app' extra")

import torch
from elsewhere import DEVICE, pretended
from hosts.contract import SIZE, HostContract
from torch import nn

from embedding_estimate.demo.random_models import Family, random_model
from embedding_estimate.estimation.trainer import Estimate, estimate
from embedding_estimate.hosts.standalone.host import StandaloneHost, StandaloneModel
from embedding_estimate.hosts.standalone.sampling import SAMPLERS, sample
from embedding_estimate.model.host import Conditioning
from embedding_estimate.objectives.attention import AttentionObjective
from embedding_estimate.objectives.unet import UNetObjective
from embedding_estimate.settings import Settings
from embedding_estimate.training import handlers, preconditioning

pytestmark = pytest.mark.slow  # each operator of torch goes through Python


@pytest.fixture
def waits() -> Iterator[list[str]]:
    with pretended() as found:
        yield found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    families: tuple[Family, ...] = ("sd1", "sdxl")
    return {
        family: random_model(family, tmp_path_factory.mktemp("models") / family, seed=shaken(0)) for family in families
    }


@functools.cache
def loaded(folder: Path, device: torch.device | str) -> StandaloneHost:
    """Whoever borrows the model gives it back as it came."""
    return StandaloneHost.load(folder, device=device)


class TestElsewhere(HostContract):
    test_all_rows_together_foresee_what_the_prediction_does = None  # mathematics, and slow here

    @pytest.fixture
    def host(self, waits: list[str], folders: dict[Family, Path]) -> StandaloneHost:
        return loaded(folders["sdxl"], DEVICE)

    @pytest.fixture
    def modules(self, host: StandaloneHost) -> Sequence[nn.Module]:
        return host.modules


def run(folder: Path, device: torch.device | str, **values: Any) -> Estimate:
    settings = Settings(
        **{
            "text": "a (red:1.5) circle",
            "name": "madeup",
            "tokens": 3,
            "steps": 2,
            "learning_steps": 12,
            "width": SIZE,
            "height": SIZE,
            "measure": "Nothing",
            **values,
        }
    )
    return estimate(settings, loaded(folder, device))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_draws_the_same_on_every_device(sampler: str, waits: list[str]) -> None:
    def drawn(device: torch.device) -> torch.Tensor:
        options: dict[str, Any] = {"schedule": "Automatic", "steps": 4, "seeds": [1, 2], "shape": (2, 4, 4)}
        levels = torch.linspace(0.03, 14.6, 100).to(device)
        latents = sample(lambda x, sigma, evaluation: x * 0.9, sampler=sampler, sigmas=levels, device=device, **options)
        assert latents.device.type == device.type
        return latents.cpu()

    torch.testing.assert_close(drawn(DEVICE), drawn(torch.device("cpu")))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"part": "Attention + U-Net", "checkpointing": True, "sampler": "DPM++ SDE", "learning_steps": 5},
        {"part": "U-Net", "text": "red AND (blue:1.2) circle :0.7", "optimizer": "LBFGS", "learning_steps": 1},
        {"part": "Transformer", "prompt_type": "Negative Prompt", "other_prompt": "a\nb", "initial_prompt": "star"},
        {"typed_weight": 1.3, "text": "a [red:(blue:1.3):0.5] circle"},
        {"tokens": 0, "scheduler": "one-cycle", "optimizer": "Adam", "learning_steps": 10},
    ],
)
def test_an_estimate_is_the_same_on_every_device(
    folders: dict[Family, Path], monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    monkeypatch.setattr(preconditioning, "SAMPLES", 2)  # what more of them would show is no matter of devices
    here = run(folders["sd1"], "cpu", **values)
    with pretended():
        there = run(folders["sd1"], DEVICE, **values)
    for key, vectors in here.embedding.vectors.items():
        difference = there.embedding.vectors[key] - vectors  # both on the CPU, as they will be saved
        assert difference.norm() < 0.01 * vectors.norm()  # many steps make rounding larger
    assert there.steps == here.steps


def test_as_many_latents_as_its_memory_holds_go_together(
    folders: dict[Family, Path], waits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six trajectories, both sides of the guidance at once, instead of four of them; the result is the same."""
    sizes: list[int] = []
    denoise = StandaloneModel.denoise

    def seen(model: StandaloneModel, x: torch.Tensor, sigma: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        sizes.append(len(x))
        return denoise(model, x, sigma, conditioning)

    monkeypatch.setattr(preconditioning, "SAMPLES", 2)
    monkeypatch.setattr(StandaloneModel, "denoise", seen)
    values: dict[str, Any] = {"part": "U-Net", "templates": "{}", "learning_steps": 2, "batch": 0}
    untold = run(folders["sd1"], DEVICE, **values)
    assert max(sizes) == 8
    sizes.clear()
    monkeypatch.setattr(StandaloneModel, "free_memory", lambda model: 10**9)
    told = run(folders["sd1"], DEVICE, **values)
    assert sizes[:2] == [12, 12] and told.passes == untold.passes
    difference = told.embedding.vectors["clip_l"] - untold.embedding.vectors["clip_l"]
    assert difference.norm() < 0.01 * untold.embedding.vectors["clip_l"].norm()


def test_an_embedding_is_measured_there(folders: dict[Family, Path], waits: list[str], brief: None) -> None:
    result = run(folders["sdxl"], DEVICE, learning_steps=3, measure="Full")
    assert result.fidelity is not None and result.fidelity.explained <= 1


@pytest.mark.parametrize(("part", "family"), [("U-Net", "sdxl"), ("Attention", "sdxl")])
def test_no_step_waits_for_the_device(
    folders: dict[Family, Path], waits: list[str], monkeypatch: pytest.MonkeyPatch, part: str, family: Family
) -> None:
    """Only what is looked at now and then does: held-out states, and the loss a few times a second."""
    monkeypatch.setattr(handlers, "READ_EVERY", 1e9)
    monkeypatch.setattr(preconditioning, "SAMPLES", 1)  # before the steps
    for objective in (UNetObjective, AttentionObjective):
        monkeypatch.setattr(objective, "held_out", lambda *_: 0.5)
        monkeypatch.setattr(objective, "held_out_among_words", lambda *_: None)  # after the steps
    counts = []
    for steps in (5, 2, 5):  # once before, for each context is read once
        waits.clear()
        run(folders[family], DEVICE, part=part, learning_steps=steps, optimizer="Adam")
        counts.append(len(waits))
    assert counts[1] == counts[2]


def test_lbfgs_waits_a_few_times_a_step_and_not_for_each_of_its_numbers(
    folders: dict[Family, Path], waits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice for the loss, and once each for vectors going there and a gradient coming back."""
    monkeypatch.setattr(handlers, "READ_EVERY", 1e9)
    monkeypatch.setattr(preconditioning, "SAMPLES", 1)
    monkeypatch.setattr(AttentionObjective, "held_out", lambda *_: 0.5)
    counts = []
    for steps in (2, 2, 8):
        waits.clear()
        run(folders["sd1"], DEVICE, part="Attention", learning_steps=steps, optimizer="LBFGS")
        counts.append(len(waits))
    assert counts[2] - counts[1] <= 6 * 5
