"""A second job with the same prompt starts at its training, and nothing else makes it do so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from suites import quick_first
from toy import ToyHost

from embedding_estimate.estimation.curve import curve
from embedding_estimate.estimation.trainer import Estimate, estimate
from embedding_estimate.model.host import Conditioning
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.recall import Recall

SETTINGS = Settings(text="red (circle:1.8)", name="madeup", tokens=2, steps=4, learning_steps=8, measure="Nothing")


def same(first: Estimate, second: Estimate) -> bool:
    return torch.equal(first.embedding.vectors["clip_l"], second.embedding.vectors["clip_l"])


@pytest.mark.parametrize("part", quick_first(2, ["U-Net", "Attention", "Transformer", "Attention + U-Net"]))
@pytest.mark.parametrize(
    "changed",
    quick_first(1, [{"tokens": 3}, {"learning_steps": 10}, {"typed_weight": 1.2}, {"optimizer": "Adam", "rate": 0.02}]),
)
def test_a_change_that_the_prompt_does_not_feel_needs_no_running_of_it(
    toy_host: ToyHost, part: str, changed: dict[str, Any]
) -> None:
    recall, first = Recall(), replace(SETTINGS, part=part)
    whole = estimate(first, toy_host, recall=recall)
    second = replace(first, **changed)
    alone, again = estimate(second, toy_host), estimate(second, toy_host, recall=recall)
    assert same(alone, again)
    assert again.passes.prepare.forwards < whole.passes.prepare.forwards / 2 or part == "Transformer"
    assert again.passes.prepare.backwards == 0
    assert again.passes.train == alone.passes.train


CHANGES: dict[str, dict[str, Any]] = {
    "text": {"text": "red (circle:1.7)"},
    "prompt type": {"prompt_type": "Negative Prompt"},
    "other prompt": {"other_prompt": "cat"},
    "contexts": {"templates": "a {}\n{} star"},
    "seed": {"seed": 3},
    "sampling steps": {"steps": 5},
    "part": {"part": "U-Net"},
    "batch": {"batch": 3},
    "guidance scale": {"part": "Attention + U-Net", "guidance_scale": 3.0},
}


@pytest.mark.parametrize("changed", quick_first(2, CHANGES.values()), ids=CHANGES)
def test_every_other_change_is_felt(toy_host: ToyHost, changed: dict[str, Any]) -> None:
    recall = Recall()
    estimate(SETTINGS, toy_host, recall=recall)
    other = replace(SETTINGS, **changed)
    assert same(estimate(other, toy_host), estimate(other, toy_host, recall=recall))


def another_unet(host: ToyHost) -> None:
    for weight in host.model.attention.to_out.parameters():
        weight.mul_(1.001)


def another_encoder(host: ToyHost) -> None:
    host.model.table.mul_(1.001)


def another_mode(host: ToyHost) -> None:
    host.model.weighing = "No norm" if host.model.weighing == "Original" else "Original"


def another_denoiser(host: ToyHost) -> None:
    """As an option of the host may change it, with the same weights."""
    plain = host.model.denoise

    def sharper(x: torch.Tensor, sigma: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        return plain(x, sigma, conditioning) * 1.001

    vars(host.model)["denoise"] = sharper


@pytest.mark.parametrize("change", quick_first(2, [another_denoiser, another_mode, another_unet, another_encoder]))
@pytest.mark.parametrize("part", quick_first(1, ["U-Net", "Attention"]))
def test_another_model_is_felt(toy_host: ToyHost, part: str, change: Callable[[ToyHost], None]) -> None:
    recall, settings = Recall(), replace(SETTINGS, part=part)
    before = estimate(settings, toy_host, recall=recall)
    change(toy_host)
    after = estimate(settings, toy_host, recall=recall)
    assert same(after, estimate(settings, toy_host)) and not same(after, before)


@pytest.mark.slow
def test_a_curve_runs_the_prompt_for_its_first_point_only(toy_host: ToyHost, brief: None) -> None:
    settings = replace(SETTINGS, measure="Quick")

    def passes(counts: list[int]) -> int:
        toy_host.model.denoised = 0
        points = list(curve(settings, toy_host, counts, stop=StopToken()))
        assert [point.tokens for point in points] == counts
        return toy_host.model.denoised

    one, two = passes([3]), passes([2, 3])
    assert two < 1.6 * one


@pytest.mark.slow
def test_a_curve_has_the_figures_of_single_estimates(toy_host: ToyHost, brief: None) -> None:
    settings = replace(SETTINGS, measure="Quick")
    points = list(curve(settings, toy_host, [2, 3], stop=StopToken()))
    for point in points:
        alone = estimate(replace(settings, tokens=point.tokens), toy_host)
        assert alone.fidelity == point.fidelity
