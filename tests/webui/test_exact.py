"""Where the WebUI keeps its text encoder in half precision, vectors are trained through one in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hosts.contract import PLAIN, encode_vectors, fingerprint
from shaking import shaken
from torch import Tensor, nn

from embedding_estimate.hosts.webui.a1111 import refusals
from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.model.host import Family, Vectors


@contextmanager
def kept_as(model: nn.Module, *dtypes: torch.dtype) -> Iterator[None]:
    """The text encoders' weights cast to each of these in turn, and put back."""
    weights = [weight for encoder in refusals.encoders(model) for weight in encoder.wrapped.parameters()]
    before = [weight.data for weight in weights]
    try:
        for weight in weights:
            for dtype in dtypes:
                weight.data = weight.data.to(dtype)
        yield
    finally:
        for weight, data in zip(weights, before, strict=True):
            weight.data = data


def learnt(model: Any) -> tuple[Tensor, dict[str, Tensor], Vectors]:
    """A context, gradients of something of it that half precision has room for, and the vectors."""
    vectors = {key: value.clone().requires_grad_() for key, value in model.token_vectors(PLAIN).items()}
    context = encode_vectors(model, vectors).context
    context.square().mean().backward()
    return context.detach(), {key: value.grad for key, value in vectors.items()}, vectors


def check(model: nn.Module) -> None:
    with kept_as(model, torch.float16, torch.float32), WebuiHost().borrow() as borrowed:
        exact, gradients, _ = learnt(borrowed)
    with kept_as(model, torch.float16):
        before = fingerprint([model])
        with WebuiHost().borrow() as borrowed:
            context, found, vectors = learnt(borrowed)
            half = {key: value.detach().half() for key, value in vectors.items()}  # autocast's work, where that is
            judged = encode_vectors(borrowed, half).context
        assert fingerprint([model]) == before
    torch.testing.assert_close(context, exact, rtol=1e-5, atol=1e-5)
    for key, gradient in gradients.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))
    assert 1e-5 < float((judged - exact).abs().max()) < 0.1  # what decides is the WebUI's own rounding


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_in_the_stand_in(loaded: Any, models: dict[Family, Any], family: Family) -> None:
    from model import copied, put_in

    check(put_in(copied(models[family])))


def test_in_a_webui(webui: Any) -> None:
    check(webui.sd_model)


def test_the_copy_is_asked_outside_of_autocast(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The WebUI's casts every layer to half precision on some devices, which cannot be switched off inside."""
    from modules import devices

    entered: list[bool] = []

    @contextmanager
    def autocast() -> Iterator[None]:
        entered.append(True)
        yield

    monkeypatch.setattr(devices, "autocast", autocast)
    monkeypatch.setattr(devices, "unet_needs_upcast", True, raising=False)
    with kept_as(loaded.sd_model, torch.float16), WebuiHost().borrow() as model:
        vectors = model.token_vectors(PLAIN)
        encode_vectors(model, {key: value.clone().requires_grad_() for key, value in vectors.items()})
        assert entered == [] and devices.unet_needs_upcast
        assert model.release() and not model.release()
        encode_vectors(model, {key: value.half() for key, value in vectors.items()})
        assert entered == [True]


def test_a_vae_that_leaves_half_precision_is_lifted_for_the_moment(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded.sd_model
    vae, decode = model.first_stage_model, model.decode_first_stage

    def overflowing(latent: Tensor) -> Tensor:
        return decode(latent) if next(vae.parameters()).dtype == torch.float32 else torch.full((1, 3, 8, 8), torch.nan)

    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(shaken(1)))
    for weight in vae.parameters():
        weight.data = weight.data.half().float()
    with WebuiHost().borrow() as borrowed:
        wanted = borrowed.decode(x)
    monkeypatch.setattr(model, "decode_first_stage", overflowing)
    vae.half()
    before = {name: weight.clone() for name, weight in vae.state_dict().items()}
    try:
        with WebuiHost().borrow() as borrowed:
            found = borrowed.decode(x)
        after = vae.state_dict()
        assert all(after[name].dtype == torch.float16 and torch.equal(after[name], before[name]) for name in before)
    finally:
        vae.float()
    torch.testing.assert_close(found, wanted)


def test_half_precision_does_where_there_is_no_memory_for_a_copy(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with kept_as(loaded.sd_model, torch.float16):
        for name, weight in loaded.sd_model.named_parameters():
            if name.endswith("final_layer_norm.bias"):
                weight.data += 1  # emphasis divides by the states' mean, which may be next to nothing in a random model
        with WebuiHost().borrow() as model, monkeypatch.context() as patched:
            patched.setattr("copy.deepcopy", fail)
            context, gradients, _ = learnt(model)
            notes = model.notes(PLAIN)
        assert all(bool(gradient.isfinite().all()) and gradient.any() for gradient in gradients.values())
        assert context.dtype == torch.float32
        assert notes == ["no memory for the text encoder in fp32: trained in the WebUI's half precision"]
