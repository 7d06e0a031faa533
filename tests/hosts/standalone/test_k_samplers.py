"""Latents drawn by the package k-diffusion, against a stand-in with the signatures of the real one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the standalone host needs the package's 'app' extra")

import torch
from hosts.contract import random_states
from hosts.standalone.test_sampling import SHAPE, coupled, model_sigmas
from torch import Tensor

from embedding_estimate.demo import demo_model_path
from embedding_estimate.hosts.standalone import k_samplers, sampling
from embedding_estimate.hosts.standalone.host import StandaloneHost


def slope(model: Any, x: Tensor, sigma: Tensor, extra_args: Any) -> Tensor:
    return (x - model(x, sigma * x.new_ones([len(x)]), **(extra_args or {}))) / sigma


def sample_euler(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
) -> Tensor:
    torch.randn_like(x)  # the real one draws too, and does not use it
    for sigma, following in pairwise(sigmas):
        x = x + slope(model, x, sigma, extra_args) * (following - sigma)
    return x


def sample_heun(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
) -> Tensor:
    for sigma, following in pairwise(sigmas):
        first = slope(model, x, sigma, extra_args)
        ahead = x + first * (following - sigma)
        if following > 0:
            second = slope(model, ahead, following, extra_args)
            ahead = x + (first + second) / 2 * (following - sigma)
        x = ahead
    return x


def sample_dpmpp_2m(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None
) -> Tensor:
    """Lu et al. 2022, "DPM-Solver++", algorithm 2, in lambda = -log sigma; its last step is of first order."""
    before, last = None, None
    for sigma, following in pairwise(sigmas):
        denoised = model(x, sigma * x.new_ones([len(x)]), **(extra_args or {}))
        if following == 0:
            return denoised
        step = (sigma / following).log()
        mixed = denoised if before is None else denoised + (denoised - before) * step / (2 * last)
        x = following / sigma * x + (1 - following / sigma) * mixed
        before, last = denoised, step
    return x


def sample_euler_ancestral(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Any = None,
    callback: Any = None,
    disable: Any = None,
    *,
    noise_sampler: Any = None,
) -> Tensor:
    for sigma, following in pairwise(sigmas):
        up = following * (1 - (following / sigma) ** 2).sqrt()
        down = (following**2 - up**2).sqrt()
        x = x + slope(model, x, sigma, extra_args) * (down - sigma)
        if following > 0:
            x = x + noise_sampler(sigma, following) * up
    return x


STAND_IN = {
    "Euler": sample_euler,
    "Heun": sample_heun,
    "DPM++ 2M": sample_dpmpp_2m,
    "Euler a": sample_euler_ancestral,
}


class CountedModule(ModuleType):
    """A `k_diffusion.sampling` that keeps the names of the functions that are called."""

    def __init__(self) -> None:
        super().__init__("k_diffusion.sampling")
        self.called: list[str] = []
        for function in STAND_IN.values():
            setattr(self, function.__name__, self._counted(function))

    def _counted(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Tensor:
            self.called.append(function.__name__)
            return function(*arguments, **options)

        return call


@pytest.fixture
def k_diffusion(monkeypatch: pytest.MonkeyPatch) -> CountedModule:
    stand_in = CountedModule()
    monkeypatch.setitem(sys.modules, "k_diffusion", ModuleType("k_diffusion"))
    monkeypatch.setitem(sys.modules, "k_diffusion.sampling", stand_in)
    return stand_in


def drawn(sampler: str, k_diffusion: ModuleType | None, steps: int = 10) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """The latents of two seeds, and each evaluation with its levels (S,)."""
    seen: list[tuple[int, Tensor]] = []

    def kept(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
        seen.append((evaluation, sigma.clone()))
        return coupled(x, sigma, evaluation)

    latents = sampling.sample(
        kept,
        sampler=sampler,
        schedule="Karras",
        steps=steps,
        seeds=(1, 2),
        shape=SHAPE,
        sigmas=model_sigmas(),
        device=torch.device("cpu"),
        k_diffusion=k_diffusion,
    )
    return latents, seen


@pytest.mark.parametrize("sampler", STAND_IN)
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_latents_are_those_of_diffusers(k_diffusion: CountedModule, sampler: str, steps: int) -> None:
    states = random_states()
    ours, seen = drawn(sampler, k_diffusion, steps)
    assert random_states() == states
    assert k_diffusion.called == [k_samplers.FUNCTIONS[sampler]]
    theirs, seen_there = drawn(sampler, None, steps)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert [evaluation for evaluation, _ in seen] == [evaluation for evaluation, _ in seen_there]
    for (_, mine), (_, other) in zip(seen, seen_there, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=0)


def test_what_it_does_not_have_is_drawn_by_diffusers(k_diffusion: CountedModule) -> None:
    for sampler in ("UniPC", "DPM++ SDE"):  # it never has the first; this one lacks the second, as an early version may
        assert torch.equal(drawn(sampler, k_diffusion)[0], drawn(sampler, None)[0])
    assert k_diffusion.called == []


def test_the_host_draws_by_it_where_it_is_installed(k_diffusion: CountedModule) -> None:
    with StandaloneHost.load(demo_model_path(), device="cpu").borrow() as model:
        size: dict[str, Any] = {"width": 64, "height": 64}
        (stage,) = model.encode("red circle", evaluations=2, **size)
        ((conditioning, _),) = stage.parts
        model.sample(
            lambda x, sigma, evaluation: model.denoise(x, sigma, conditioning),
            sampler="Euler",
            schedule="Karras",
            steps=2,
            seeds=[1],
            **size,
        )
    assert k_diffusion.called == ["sample_euler"]


def test_a_package_that_is_missing_is_no_news(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name="k_diffusion")

    monkeypatch.setattr(k_samplers, "import_module", missing)
    assert k_samplers.installed() is None
    assert not caplog.records


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'clip'", name="clip"),
        RuntimeError("operator torchvision::nms does not exist"),
    ],
)
def test_a_package_that_does_not_load_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def broken(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(k_samplers, "import_module", broken)
    with caplog.at_level(logging.WARNING):
        assert k_samplers.installed() is None
    assert caplog.messages == [f"k-diffusion does not load, so diffusers draws the latents: {error}"]
