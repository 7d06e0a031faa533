"""Spread, bounds and fitting of vectors."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st
from toy import ToyModel

from embedding_estimate.model.vectors import NORM_LIMIT, VectorSpace, count, fit, nearest


def test_leaves_are_in_spreads(toy: ToyModel) -> None:
    space = VectorSpace.of(toy)
    assert space.spread["clip_l"] == float(toy.table.float().std())
    vectors = {"clip_l": toy.table[:3]}
    leaves = space.leaves(vectors, "cpu")
    torch.testing.assert_close(leaves["clip_l"] * space.spread["clip_l"], toy.table[:3], rtol=1e-2, atol=0)
    assert leaves["clip_l"].is_leaf and leaves["clip_l"].requires_grad
    torch.testing.assert_close(space.vectors(leaves)["clip_l"], toy.table[:3])


def test_leaves_may_be_elsewhere_than_the_model(toy: ToyModel) -> None:
    space = replace(VectorSpace.of(toy), device=torch.device("meta"))
    leaves = space.leaves({"clip_l": toy.table[:3]}, "cpu")
    assert leaves["clip_l"].device.type == "cpu" and space.vectors(leaves)["clip_l"].device.type == "meta"


def test_only_what_is_too_long_is_shortened(toy: ToyModel) -> None:
    space = VectorSpace.of(toy)
    long = toy.table[:1] / toy.table[:1].norm() * space.norm["clip_l"] * 2 * NORM_LIMIT
    bounded = space.vectors(space.leaves({"clip_l": torch.cat([toy.table[:1], long, torch.zeros_like(long)])}, "cpu"))
    torch.testing.assert_close(bounded["clip_l"][:1], toy.table[:1])
    torch.testing.assert_close(bounded["clip_l"][1:2], long * 0.99 / 2)
    assert not bounded["clip_l"][2:].any()


@given(st.floats(0, 1e6))
def test_no_leaf_stands_for_a_vector_beyond_the_limit(size: float) -> None:
    space = VectorSpace.of(ToyModel())
    leaves = {"clip_l": torch.full((1, 6), size, dtype=torch.float64, requires_grad=True)}
    vectors = space.vectors(leaves)
    assert space.norm_ratio(vectors) <= NORM_LIMIT * (1 + 1e-9)
    (gradient,) = torch.autograd.grad(vectors["clip_l"].sum(), leaves["clip_l"])
    assert torch.isfinite(gradient).all() and (gradient >= 0).all()


@given(st.integers(1, 8), st.integers(1, 8))
def test_fit_cuts_or_fills_with_zeros(have: int, want: int) -> None:
    vectors = {"clip_l": torch.randn(have, 3), "clip_g": torch.randn(have, 5)}
    fitted = fit(vectors, want)
    assert count(fitted) == want
    for key, value in fitted.items():
        kept = min(have, want)
        assert torch.equal(value[:kept], vectors[key][:kept])
        assert not value[kept:].any()


def test_random_vectors_look_like_the_vocabulary_and_follow_the_seed(toy: ToyModel) -> None:
    space = VectorSpace.of(toy)
    drawn = space.random(4000, seed=1)["clip_l"]
    torch.testing.assert_close(drawn.mean(0), toy.table.float().mean(0), atol=0.01, rtol=0)
    assert abs(float((drawn - drawn.mean(0)).std()) / space.spread["clip_l"] - 1) < 0.03
    assert torch.equal(drawn, space.random(4000, seed=1)["clip_l"])
    assert not torch.equal(drawn, space.random(4000, seed=2)["clip_l"])


def test_the_nearest_rows_by_hand() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0], [0.0, 0.0], [-5.0, 0.0]])
    places, similarities = nearest(torch.tensor([[10.0, 0.0], [0.0, 0.1]]), table, 2)
    assert places.tolist() == [[0, 2], [1, 2]]
    torch.testing.assert_close(similarities, torch.tensor([[1.0, 0.6], [1.0, 0.8]]))
    places, similarities = nearest(torch.zeros(1, 2), table.half(), 9)
    assert sorted(places[0].tolist()) == [0, 1, 2, 3, 4] and similarities.tolist() == [[0.0] * 5]
