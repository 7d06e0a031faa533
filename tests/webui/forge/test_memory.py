"""The memory of Forge and Forge Neo, which their own manager shares out, against a stand-in of their modules."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

import torch
from hosts.contract import PLAIN, encode, encode_vectors, latent

from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.model.host import Family

Press = Callable[[Callable[[], Any]], threading.Thread]


def test_models_stay_in_their_place_and_what_a_job_needs_is_asked_for(loaded: Any) -> None:
    from backend import memory_management

    objects = loaded.sd_model.forge_objects_original
    memory_management.asked.clear()
    with WebuiHost().borrow() as model:
        inside = {objects.unet, objects.clip.patcher}
        assert memory_management.asked == [4 * 64 * 64] and {*memory_management.current_loaded_models} == inside
        encode(model, PLAIN)
        assert len(memory_management.asked) == 1  # the text encoders are there
        model.decode(latent(model, 1))  # brings the VAE in, for which something has to go
        assert {*memory_management.current_loaded_models} == inside
        vectors = {key: value.requires_grad_() for key, value in model.token_vectors(PLAIN).items()}
        x, sigma = latent(model, 1), torch.ones(1)
        model.denoise(x, sigma, encode_vectors(model, vectors)).square().mean().backward()
        assert all(float(value.grad.abs().sum()) > 0 for value in vectors.values())


@pytest.mark.parametrize("network", ["unet", "text encoder"])
def test_weights_that_are_cast_in_each_call_are_not_kept_for_the_backward_pass(loaded: Any, network: str) -> None:
    objects = loaded.sd_model.forge_objects
    root = objects.unet.model if network == "unet" else objects.clip.cond_stage_model

    def kept() -> tuple[int, torch.Tensor]:
        saved: list[Any] = []
        with WebuiHost().borrow() as model:
            vectors = {key: value.requires_grad_() for key, value in model.token_vectors(PLAIN).items()}
            with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
                conditioning = encode_vectors(model, vectors)
                if network == "unet":
                    model.denoise(latent(model, 1), torch.ones(1), conditioning).square().sum().backward()
                else:
                    conditioning.context.square().sum().backward()
        gradient = vectors["clip_l"].grad
        assert gradient is not None
        return len(saved), gradient

    plain, expected = kept()
    next(root.modules()).parameters_manual_cast = True  # as where a layer is on the CPU, or in half precision
    less, gradient = kept()
    assert less < plain / 2
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("webui_kind", ["Forge", "Neo"], indirect=True)
def test_what_the_manager_notes_at_the_weights_during_a_job_stays(loaded: Any, webui_kind: str) -> None:
    """It moves some of them out for the VAE: an old note would have the next image leave them as they are."""
    noted = {"parameters_manual_cast": True, "prev_parameters_manual_cast": False}
    if webui_kind == "Neo":
        noted["forge_patched_weights"] = False
    part = next(loaded.sd_model.forge_objects.unet.model.diffusion_model.modules())
    vars(part).update(dict.fromkeys(noted, None))
    with WebuiHost().borrow():
        vars(part).update(noted)
    assert noted.items() <= vars(part).items()


def test_sdxl_is_larger_and_needs_more(put: Callable[[Family], Any]) -> None:
    from backend import memory_management

    put("sdxl")
    with WebuiHost().borrow():
        assert memory_management.asked == [4 * 128 * 128]


@pytest.mark.parametrize("webui_kind", ["Forge", "Neo"], indirect=True)
@pytest.mark.parametrize("by", ["API", "button"])
def test_who_unloads_all_models_has_to_wait_for_the_job(loaded: Any, press: Press, by: str) -> None:
    """Neo forgets the model then, by whose name its samplers ask for it."""
    from backend import memory_management
    from modules import sd_models

    button = sd_models.unload_model_weights  # the page keeps the function itself
    with WebuiHost().borrow() as model:
        inside = list(memory_management.current_loaded_models)
        assert len(inside) == 2
        pressed = press(button if by == "button" else lambda: sd_models.unload_model_weights())
        assert memory_management.current_loaded_models == inside
        assert sd_models.model_data.sd_model is loaded.sd_model and hasattr(loaded.sd_model, "forge_objects")
        encode(model, PLAIN)
    pressed.join(60)
    assert memory_management.current_loaded_models == []
    with WebuiHost().borrow():
        assert len(memory_management.current_loaded_models) == 2


def test_settings_of_the_memory_hold_from_the_next_job_on(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forge unloads all for them, before the next image at the latest."""
    from backend import memory_management
    from modules import processing

    unloaded: list[str] = []
    monkeypatch.setattr(memory_management, "unload_all_models", lambda: unloaded.append("all"))
    with WebuiHost().borrow():
        assert unloaded == []
    processing.need_global_unload = True
    for _ in range(2):
        with WebuiHost().borrow():
            assert unloaded == ["all"]
