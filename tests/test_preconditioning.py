"""Coordinates in which a loss is about as steep everywhere: their maths, and what they spare LBFGS."""

from typing import Any

import pytest
import torch
from torch import Tensor

from embedding_estimate import preconditioning
from embedding_estimate.optimizers import make_loss, make_optimizer
from embedding_estimate.preconditioning import Preconditioned, preconditioned
from embedding_estimate.vectors import VectorSpace

ROWS, WIDTHS = 4, {"clip_l": 5, "clip_g": 7}


class Linear:
    """Residuals that a matrix for each encoder makes of its vectors, added up."""

    def __init__(self, **matrices: Tensor) -> None:
        self.loss_function = make_loss("MSE")
        self.matrices = matrices  # (M, N * width) each

    def loss(self, vectors: dict[str, Tensor], drawn: Any) -> Tensor:
        found = sum(matrix @ vectors[key].flatten() for key, matrix in self.matrices.items())
        return self.loss_function(found[None], torch.zeros_like(found)[None])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def space() -> VectorSpace:
    """Spreads of 1 and no limit to speak of, so that leaves are the vectors themselves."""
    ones = dict.fromkeys(WIDTHS, 1.0)
    mean = {key: torch.zeros(width, dtype=torch.float64) for key, width in WIDTHS.items()}
    return VectorSpace(mean, ones, dict.fromkeys(WIDTHS, 1e9), torch.device("cpu"))


@pytest.fixture
def start() -> dict[str, Tensor]:
    return {key: normal(ROWS, width, seed=width) for key, width in WIDTHS.items()}


def made(space: VectorSpace, objective: Any, start: dict[str, Tensor]) -> VectorSpace:
    return preconditioned(space, objective, start, [None], torch.Generator().manual_seed(0))


def both(scale: float = 1.0) -> Linear:
    return Linear(**{key: scale * normal(50, ROWS * width, seed=width + 1) for key, width in WIDTHS.items()})


def test_leaves_stand_for_the_vectors_they_were_made_of(space: VectorSpace, start: dict[str, Tensor]) -> None:
    found = made(space, both(), start)
    leaves = found.leaves(start, "cpu")
    assert isinstance(found, Preconditioned)
    assert all(leaf.is_leaf and leaf.requires_grad for leaf in leaves.values())
    assert not any(torch.allclose(leaves[key], start[key]) for key in start)
    for key, value in found.vectors(leaves).items():
        torch.testing.assert_close(value, start[key])


def test_of_a_curvature_that_is_a_product_only_the_prior_is_left(
    space: VectorSpace, start: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """J'J = diag(h) (x) C0 with a mean eigenvalue of 1 in C0 becomes C0 / (1 + C0), for as many samples as it takes."""
    monkeypatch.setattr(preconditioning, "SAMPLES", 4000)
    monkeypatch.setattr(preconditioning, "FLOOR", 0.0)
    h, eigenvalues = torch.tensor([0.01, 1.0, 4.0, 25.0]).double(), torch.tensor([0.1, 0.2, 0.7, 1.0, 3.0]).double()
    rotation, _ = torch.linalg.qr(normal(5, 5))
    root = rotation * eigenvalues.sqrt() @ rotation.T
    jacobian = torch.kron(h.sqrt().diag(), root)
    found = made(space, Linear(clip_l=jacobian), {"clip_l": start["clip_l"]})

    leaf = torch.zeros(ROWS, 5, dtype=torch.float64)
    by_leaf = torch.autograd.functional.jacobian(
        lambda value: jacobian @ found.vectors({"clip_l": value})["clip_l"].flatten(), leaf
    ).flatten(1)
    curvature = by_leaf.T @ by_leaf / h.log().mean().exp()
    expected = rotation * (eigenvalues / (1 + eigenvalues)) @ rotation.T
    torch.testing.assert_close(curvature, torch.kron(torch.eye(ROWS).double(), expected), rtol=0, atol=0.05)


def test_encoders_are_scaled_against_each_other(space: VectorSpace, start: dict[str, Tensor]) -> None:
    objective = both()
    objective.matrices["clip_g"] = 10 * objective.matrices["clip_g"]
    found = made(space, objective, start)
    assert isinstance(found, Preconditioned)
    ratio = found.sizes["clip_l"].log().mean().exp() / found.sizes["clip_g"].log().mean().exp()
    assert 8 < float(ratio) < 12.5
    assert float(torch.cat(list(found.sizes.values())).log().mean()) == pytest.approx(0, abs=1e-6)


def test_the_unit_of_the_loss_does_not_matter(space: VectorSpace, start: dict[str, Tensor]) -> None:
    one, other = (made(space, both(scale), start).leaves(start, "cpu") for scale in (1.0, 1e-3))
    for key in start:
        torch.testing.assert_close(one[key], other[key])


def test_vectors_that_nothing_is_read_of_stay_finite(space: VectorSpace, start: dict[str, Tensor]) -> None:
    matrix = normal(50, ROWS * 5)
    matrix[:, 5:10] = 0
    found = made(space, Linear(clip_l=matrix), start)
    leaves = found.leaves(start, "cpu")
    assert all(torch.isfinite(leaf).all() for leaf in leaves.values())
    torch.testing.assert_close(found.vectors(leaves)["clip_g"], start["clip_g"])


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_without_a_gradient_the_space_stays_as_it_is(
    space: VectorSpace, start: dict[str, Tensor], value: float
) -> None:
    objective = Linear(clip_l=torch.full((3, ROWS * 5), value, dtype=torch.float64))
    assert made(space, objective, start) is space


def test_lbfgs_gets_further_in_as_many_steps(space: VectorSpace, start: dict[str, Tensor]) -> None:
    uneven = torch.logspace(-1.5, 1.5, ROWS).double().repeat_interleave(5)
    objective = Linear(clip_l=normal(50, ROWS * 5) * uneven)
    vectors = {"clip_l": start["clip_l"]}

    def after_steps(chosen: VectorSpace) -> float:
        leaves = chosen.leaves(vectors, "cpu")
        optimizer = make_optimizer("LBFGS", leaves.values(), 1.0)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = objective.loss(chosen.vectors(leaves), None)
            loss.backward()
            return loss

        for _ in range(10):
            loss = optimizer.step(closure)
        return float(loss.detach())

    assert after_steps(made(space, objective, vectors)) < 0.1 * after_steps(space)


def test_the_objective_keeps_its_own_loss(space: VectorSpace, start: dict[str, Tensor]) -> None:
    objective = both()
    before = objective.loss_function
    made(space, objective, start)
    assert objective.loss_function is before
