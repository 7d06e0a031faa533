"""The cost of a step: its plumbing and its gates. How long anything takes is not tested."""

from dataclasses import replace

import pytest
import torch

from benchmarks.step_cost import TOKENS, Bare, Row, cost, summarise
from embedding_estimate.demo.random_models import random_model
from embedding_estimate.hosts.standalone.loading import LoadedModel, load
from embedding_estimate.settings import Settings

ROW = Row("toy", "U-Net", 4, "8x8", 0.10, 0.095, 1.05, 0.15, 0.167)


def settings(**values) -> Settings:
    return Settings(
        **{"text": "a (red:1.5) circle", "tokens": TOKENS, "learning_steps": 8, "save_every": 1, **values},
        sampler="Euler",
        steps=2,
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(random_model("sd1", tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize("part", ["U-Net", "Transformer"])
def test_steps_bare_steps_and_the_references_are_timed(loaded: LoadedModel, part: str) -> None:
    row = cost(loaded, settings(part=part, batch=2))
    assert (row.part, row.batch, row.latent) == (part, 2, "8x8")
    assert min(row.seconds, row.seconds_bare, row.seconds_reference, row.of_bare) > 0
    assert (row.per_state_of_reference is None) == (part == "Transformer")


@pytest.mark.parametrize("part", ["U-Net", "Transformer"])
def test_the_bare_step_reaches_the_vectors_and_leaves_nothing_behind(loaded: LoadedModel, part: str) -> None:
    for module in (loaded.unet, loaded.text_encoders["clip_l"].model):
        module.requires_grad_(False)
    bare = Bare(loaded, settings(part=part), (8, 8))
    bare.step()
    assert bare.vectors.grad is not None and bare.vectors.grad.shape == (TOKENS, 32)
    assert torch.all(bare.vectors.grad.norm(dim=1) > 0)
    assert not bare.table._forward_hooks


def test_gates() -> None:
    """Every row against a bare step; against the reference only what a user gets, four states of the U-Net part."""
    rows = [ROW, replace(ROW, batch=1, of_bare=1.2, per_state_of_reference=0.4), replace(ROW, part="Transformer")]
    gates = summarise(rows)["gates"]
    assert [(gate["figure"], gate["reached"]) for gate in gates] == [
        ("of_bare", True),
        ("per_state_of_reference", True),
        ("of_bare", False),
        ("of_bare", True),
    ]
