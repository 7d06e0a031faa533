"""Every row of the tables does its work."""

import pytest
import torch
from shaking import shaken

from embedding_estimate.optimizers import (
    LOSSES,
    OPTIMIZERS,
    SCHEDULERS,
    automatic_rate,
    make_loss,
    make_optimizer,
    make_scheduler,
)
from embedding_estimate.settings import Settings

OPTIONAL = {name for name, row in OPTIMIZERS.items() if row.package != "torch"}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - OPTIONAL))
def test_every_optimizer_goes_down_at_its_automatic_rate(name: str) -> None:
    leaf = torch.ones(3, 4, requires_grad=True)
    optimizer = make_optimizer(name, [leaf], automatic_rate(name, 1.0))

    def closure() -> float:
        optimizer.zero_grad()
        loss = leaf.square().mean()
        loss.backward()
        return loss.item()

    for _ in range(30):
        optimizer.step(closure)
    assert float(leaf.detach().square().mean()) < 0.9


def test_rates_shrink_with_the_distance_left() -> None:
    assert automatic_rate("Adam", 0.5) == 0.5 * automatic_rate("Adam", 1.0)
    assert automatic_rate("SGD", 0.5) == 0.25 * automatic_rate("SGD", 1.0)
    assert automatic_rate("LBFGS", 0.5) == automatic_rate("LBFGS", 1.0)
    assert automatic_rate("Adam", 7.0) == automatic_rate("Adam", 1.0)


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_a_missing_package_is_named_with_its_remedy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    problems = Settings(text="red", name="x1", optimizer=name).problems()
    assert len(problems) == 1 and f"pip install {OPTIMIZERS[name].package}" in problems[0]


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_every_scheduler_keeps_the_rate_within_bounds(name: str, steps: int) -> None:
    leaf = torch.ones(1, requires_grad=True)
    optimizer = make_optimizer("SGD", [leaf], 1.0)
    scheduler = make_scheduler(name, optimizer, steps)
    rates = []
    for _ in range(steps):
        leaf.grad = torch.zeros(1)
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        if scheduler:
            scheduler.step()
    assert all(0 <= rate <= 1.0 + 1e-9 for rate in rates)
    if name == "constant":
        assert set(rates) == {1.0}
    elif steps == 100:
        assert len(set(rates)) > 1


def test_mse_is_the_mean_of_squares() -> None:
    assert float(make_loss("MSE")(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]))) == 2.5


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_is_least_where_the_two_are_equal(name: str) -> None:
    torch.manual_seed(shaken(0))
    target = torch.randn(2, 3, 4)
    loss = make_loss(name)
    assert abs(float(loss(target, target))) < 1e-6
    assert float(loss(target + torch.randn(2, 3, 4), target)) > 1e-3
