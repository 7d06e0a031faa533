from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from toy import ToyModel

from embedding_estimate.model.forwarding import ForwardingModel
from embedding_estimate.model.host import BorrowedModel, Conditioning
from embedding_estimate.model.meter import Meter, Passes, StagePasses
from embedding_estimate.progress import Stopped, StopToken


def declared() -> dict[str, Any]:
    """What the protocol of a borrowed model asks for, by name."""
    return {name: member for name, member in vars(BorrowedModel).items() if not name.startswith("_")}


class Recorder:
    """Answers whatever is asked with the question."""

    def __getattr__(self, name: str) -> Any:
        if isinstance(declared()[name], property):
            return name
        return lambda *arguments, **options: (name, arguments, options)


@pytest.mark.parametrize("kind", [ForwardingModel, Meter])
@pytest.mark.parametrize("name", sorted(declared()))
def test_every_call_is_passed_on_with_all_its_arguments(kind: type[ForwardingModel], name: str) -> None:
    model, member = kind(Recorder()), declared()[name]
    if isinstance(member, property):
        assert getattr(model, name) == name
        return
    if name == "denoise":
        return  # it counts the answer, see below
    parameters = list(inspect.signature(member).parameters.values())[1:]
    places = [object() for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    options = {p.name: object() for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert getattr(model, name)(*places, **options) == (name, tuple(places), options)


def test_passes_are_counted_by_latents(toy: ToyModel) -> None:
    seen: list[int] = []
    meter = Meter(toy, seen.append)
    (stage,) = meter.encode("red", evaluations=1, width=32, height=32)
    conditioning = stage.parts[0][0]
    x = torch.ones(3, 4, 4, 4, dtype=torch.float64)
    assert torch.equal(meter.denoise(x, torch.ones(3), conditioning), toy.denoise(x, torch.ones(3), conditioning))
    trained = Conditioning(conditioning.context.clone().requires_grad_())
    assert meter.denoise(x[:2], torch.ones(2), trained).requires_grad
    assert meter.passes.total == Passes(5, 2) and seen == [3, 2]


def test_passes_count_as_those_of_the_innermost_stage(toy: ToyModel) -> None:
    """One latent before any stage, then one to train, two to prepare and three to train, and four to measure."""
    meter = Meter(toy)
    conditioning = meter.encode("red", evaluations=1, width=32, height=32)[0].parts[0][0]

    def run(latents: int) -> None:
        meter.denoise(torch.zeros(latents, 4, 4, 4), torch.ones(latents), conditioning)

    run(1)
    with meter.stage("train"):
        run(1)
        with pytest.raises(KeyError), meter.stage("prepare"):
            run(2)
            raise KeyError
        run(3)
    with meter.stage("measure"):
        run(4)
    assert meter.passes == StagePasses(Passes(1 + 2), Passes(1 + 3), Passes(4))
    assert meter.passes.total == Passes(toy.denoised)


def test_an_interruptible_stretch_may_lie_in_another(toy: ToyModel) -> None:
    meter, stop = Meter(toy), StopToken()
    x = torch.zeros(1, 4, 4, 4)
    conditioning = toy.encode("red", evaluations=1, width=32, height=32)[0].parts[0][0]
    with meter.interruptible(stop.check):
        with meter.interruptible(stop.check):
            meter.denoise(x, torch.ones(1), conditioning)
        stop.stop(save=True)
        with pytest.raises(Stopped):
            meter.denoise(x, torch.ones(1), conditioning)
    meter.denoise(x, torch.ones(1), conditioning)
