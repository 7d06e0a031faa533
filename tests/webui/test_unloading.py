"""Who unloads the model without a turn in the queue, against the stand-in."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

from hosts.contract import PLAIN, encode, latent

from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.hosts.webui.reforge.pipeline import ReforgePipeline
from embedding_estimate.hosts.webui.turns import queued, turn
from embedding_estimate.model.host import Family

Press = Callable[[Callable[[], Any]], threading.Thread]


def test_who_unloads_the_checkpoint_has_to_wait_for_the_job(loaded: Any, press: Press) -> None:
    from modules import sd_models

    before = loaded.sd_model
    with WebuiHost().borrow() as model:
        button = press(sd_models.unload_model_weights)
        assert loaded.sd_model is before
        encode(model, PLAIN)
    button.join(60)
    assert loaded.sd_model is None


def test_buttons_that_move_the_checkpoint_have_to_wait_for_the_job(
    loaded: Any, models: dict[Family, Any], press: Press
) -> None:
    """AUTOMATIC1111's, since 1.7, call a function that they keep."""
    from model import copied, put_in

    theirs = put_in(copied(models["sd1"]))
    with WebuiHost().borrow() as model:
        button = press(lambda: theirs.to("meta"))
        assert not any(parameter.is_meta for parameter in theirs.parameters())
        encode(model, PLAIN)
    button.join(60)
    assert all(parameter.is_meta for parameter in theirs.parameters())
    assert "to" not in vars(theirs)


def test_medvrams_button_has_to_wait_too(loaded: Any, models: dict[Family, Any], press: Press) -> None:
    """It moves out what is in, which is the VAE while it decodes."""
    from model import copied, put_in
    from modules import lowvram

    theirs = put_in(copied(models["sd1"]))
    lowvram.setup_for_low_vram(theirs)
    theirs.get_learned_conditioning([PLAIN])
    with WebuiHost().borrow() as model:
        model.decode(latent(model, 1))
        button = press(lambda: lowvram.send_everything_to_cpu())
        assert lowvram.module_in_gpu is theirs.first_stage_model
        encode(model, PLAIN)
    button.join(60)
    assert lowvram.module_in_gpu is None
    theirs.get_learned_conditioning([PLAIN])
    assert lowvram.module_in_gpu is theirs.cond_stage_model


def test_an_early_api_has_to_wait_too(loaded: Any, press: Press, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.6 it keeps the function itself."""
    from modules import sd_models

    api: Any = ModuleType("modules.api.api")
    api.unload_model_weights = sd_models.unload_model_weights
    monkeypatch.setitem(sys.modules, "modules.api.api", api)
    with WebuiHost().borrow() as model:
        route = press(api.unload_model_weights)
        assert loaded.sd_model is not None
        encode(model, PLAIN)
    route.join(60)
    assert loaded.sd_model is None


def test_the_buttons_of_reforge_and_of_classic_have_to_wait_too(
    shared: Any, press: Press, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setitem(sys.modules, "modules.sd_models_xl", SimpleNamespace(move_clip_to_gpu=lambda: None))
    forge_clip = SimpleNamespace(move_clip_to_gpu=lambda: None)
    monkeypatch.setitem(sys.modules, "modules_forge", SimpleNamespace(forge_clip=forge_clip))
    manager = SimpleNamespace(unload_all_models=lambda: done.append("unloaded"))
    for name, module in {"ldm_patched": None, "ldm_patched.modules": SimpleNamespace(model_management=manager)}.items():
        monkeypatch.setitem(sys.modules, name, module or ModuleType(name))
    theirs = SimpleNamespace(to=done.append)
    with turn(), ReforgePipeline(theirs)._kept_loaded():
        buttons = [press(lambda: theirs.to("cpu")), press(lambda: manager.unload_all_models())]
        assert done == []
    for button in buttons:
        button.join(60)
    assert sorted(done) == ["cpu", "unloaded"]


def test_a_call_stands_in_the_queue_but_for_the_one_who_has_the_turn(shared: Any, press: Press) -> None:
    made: list[Any] = []
    owner = SimpleNamespace(call=lambda *arguments, **named: made.append((arguments, named)))
    before = owner.call
    with turn(), queued(owner, "call"):
        theirs = press(lambda: owner.call(1, by="hand"))
        assert theirs.is_alive() and made == []
        owner.call(2)
        assert made == [((2,), {})]
    theirs.join(60)
    assert made == [((2,), {}), ((1,), {"by": "hand"})]
    assert owner.call is before
