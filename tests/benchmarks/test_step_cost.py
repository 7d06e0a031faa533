"""The cost of a step: its plumbing and its gates. How long anything takes is not tested."""

from dataclasses import replace

import pytest
import torch
from shaking import shaken

from benchmarks.step_cost import SINGLE_PARTS, TOKENS, Bare, Row, cost, summarise
from embedding_estimate.demo.random_models import random_model
from embedding_estimate.hosts.attention import AttentionLayer, cross_attentions
from embedding_estimate.hosts.standalone.loading import LoadedModel, load
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.probes import LayerProbes

pytestmark = pytest.mark.tools

ROW = Row("toy", "U-Net", 4, "8x8", 0.10, 0.095, 1.05, 0.15, 0.167, None, None)


def settings(**values) -> Settings:
    return Settings(
        **{"text": "a (red:1.5) circle", "tokens": TOKENS, "learning_steps": 8, "preview_every": 1, **values},
        sampler="Euler",
        steps=2,
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(random_model("sd1", tmp_path_factory.mktemp("model"), seed=shaken(0)))


@pytest.mark.slow
@pytest.mark.parametrize("part", SINGLE_PARTS)
def test_steps_bare_steps_and_larger_ones_are_timed(loaded: LoadedModel, part: str) -> None:
    row = cost(loaded, settings(part=part, batch=2, optimizer="Adam"))
    assert (row.part, row.batch, row.latent) == (part, 2, "8x8")
    assert min(row.seconds, row.seconds_bare, row.of_bare) > 0
    if part == "U-Net":
        assert row.per_state_of_reference == pytest.approx(row.seconds / 2 / row.seconds_reference)
        assert row.seconds_unet is None
    else:
        assert row.of_unet == pytest.approx(row.seconds / row.seconds_unet)
        assert row.seconds_reference is None


@pytest.mark.parametrize("part", SINGLE_PARTS)
def test_the_bare_step_reaches_the_vectors_and_leaves_nothing_behind(loaded: LoadedModel, part: str) -> None:
    for module in (loaded.unet, loaded.text_encoders["clip_l"].model):
        module.requires_grad_(False)
    probes = []
    if part == "Attention":
        rows = [torch.zeros(1, layer.heads, 5, layer.to_q.out_features // layer.heads) for layer in layers(loaded)]
        probes = [LayerProbes((layer,), r, r) for layer, r in zip(layers(loaded), rows, strict=True)]
    bare = Bare(loaded, part, tokens=TOKENS, batch=4, latent=(8, 8), probes=probes)
    bare.step()
    assert bare.vectors.grad is not None and bare.vectors.grad.shape == (TOKENS, 32)
    assert torch.all(bare.vectors.grad.norm(dim=1) > 0)
    assert not bare.table._forward_hooks


def layers(loaded: LoadedModel) -> list[AttentionLayer]:
    return cross_attentions(loaded.unet)


def test_a_bare_reading_is_what_probes_read(loaded: LoadedModel) -> None:
    """The same products, so that the ratio compares like with like."""
    shapes = [(layer.heads, 5, layer.to_q.out_features // layer.heads) for layer in layers(loaded)]
    alike = tuple(layer for layer, shape in zip(layers(loaded), shapes, strict=True) if shape == shapes[0])
    assert len(alike) > 1
    rows = (len(alike), *shapes[0])
    probes = LayerProbes(alike, torch.randn(rows), torch.randn(rows))
    bare = Bare(loaded, "Attention", tokens=1, batch=1, latent=(8, 8), probes=[probes])
    [(modules, _queries, _gradients)] = bare.layers
    context = torch.randn(1, 77, 32)
    read = bare._read(modules, probes.queries, probes.gradients, context)
    assert torch.allclose(read, probes.read(context).flatten())


def test_gates() -> None:
    """Every row against a bare step; four states of the U-Net part against the reference, Attention's at the real
    latent against the U-Net."""
    attention = replace(ROW, part="Attention", batch=1, per_state_of_reference=None, of_unet=0.06)
    rows = [
        ROW,
        replace(ROW, batch=1, of_bare=1.2, per_state_of_reference=0.4),
        replace(ROW, part="Transformer"),
        attention,
        replace(attention, latent="64x64"),
    ]
    gates = summarise(rows)["gates"]
    assert [(gate["figure"], gate["reached"]) for gate in gates] == [
        ("of_bare", True),
        ("per_state_of_reference", True),
        ("of_bare", False),
        ("of_bare", True),
        ("of_bare", True),
        ("of_bare", True),
        ("of_unet", False),
    ]
