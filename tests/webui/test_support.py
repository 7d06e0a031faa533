"""What cannot be worked with is refused by name; what --medvram keeps apart is brought together."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hosts.contract import PLAIN, encode, encode_vectors, latent, only
from torch import nn

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.webui.host import WebuiHost

INSIDE = torch.device("cpu:0")  # the same memory as "cpu", and yet another name: so the moves can be told apart
OUTSIDE = torch.device("cpu")


@pytest.fixture
def lowvram(webui: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The WebUI's module of that name, with nothing brought in yet."""
    if not webui.cmd_opts.medvram:
        pytest.skip("the WebUI was started without --medvram")
    from modules import devices, lowvram

    lowvram.send_everything_to_cpu()
    monkeypatch.setattr(devices, "device", INSIDE)
    yield lowvram
    lowvram.send_everything_to_cpu()


@pytest.fixture
def places(webui: Any, lowvram: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[torch.device]]:
    """Where U-Net and text encoders are asked to go, in order."""
    model = webui.sd_model
    encoder = getattr(model, "conditioner", None) or model.cond_stage_model
    parts = {"unet": set(model.model.parameters()), "encoder": set(encoder.parameters())}
    asked: dict[str, list[torch.device]] = {name: [] for name in parts}
    move = nn.Module.to

    def to(module: nn.Module, device: torch.device) -> nn.Module:
        for name, parameters in parts.items():
            if not parameters.isdisjoint(module.parameters()):
                asked[name].append(device)
        return move(module, device)

    monkeypatch.setattr(nn.Module, "to", to)
    return asked


@pytest.mark.parametrize("last", ["encoder", "vae", None])
def test_medvram_keeps_all_that_learns_on_the_device(
    webui: Any, lowvram: Any, places: dict[str, list[torch.device]], last: str | None
) -> None:
    model = webui.sd_model
    hooks = [list(part._forward_pre_hooks.items()) for part in model.modules()]
    if last == "encoder":
        model.get_learned_conditioning([PLAIN])
    elif last == "vae":
        model.first_stage_model.decode(torch.zeros(1, 4, 8, 8))
    inside = lowvram.module_in_gpu
    assert (inside is None) == (last is None)
    with WebuiHost().borrow() as borrowed:
        assert {name: asked[-1] for name, asked in places.items()} == {"unet": INSIDE, "encoder": INSIDE}
        moves = {name: len(asked) for name, asked in places.items()}
        conditioning = encode_vectors(borrowed, borrowed.token_vectors(PLAIN))
        for each in (conditioning, only(encode(borrowed, PLAIN))):
            borrowed.denoise(latent(borrowed, 1), torch.ones(1), each)
        borrowed.decode(latent(borrowed, 1))
        assert {name: len(asked) for name, asked in places.items()} == moves
    assert places["unet"][-1] == OUTSIDE and places["encoder"][-1] == (INSIDE if last == "encoder" else OUTSIDE)
    assert lowvram.module_in_gpu is inside
    assert [list(part._forward_pre_hooks.items()) for part in model.modules()] == hooks


def test_lowvram_is_refused(webui: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(webui.sd_model, "forge_objects"):
        pytest.skip("reForge takes the argument and does nothing with it")
    monkeypatch.setattr(webui.cmd_opts, "lowvram", True)
    with pytest.raises(ModelError, match="--medvram"), WebuiHost().borrow():
        pass


def test_a_network_in_the_place_of_the_unet_is_refused(webui: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sd_unet = pytest.importorskip("modules.sd_unet", reason="this WebUI has no such setting")
    monkeypatch.setattr(sd_unet, "get_unet_option", lambda: SimpleNamespace(label="[TRT] tiny"))
    with pytest.raises(ModelError, match=r"\[TRT\] tiny"), WebuiHost().borrow():
        pass
