"""Who unloads the model without a turn in the queue, against the stand-in."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

from hosts.contract import PLAIN, encode

from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.hosts.webui.reforge.pipeline import ReforgePipeline
from embedding_estimate.hosts.webui.replacing import put_off
from embedding_estimate.model.host import Family


def test_who_unloads_the_checkpoint_has_to_wait_for_the_job(loaded: Any) -> None:
    from modules import sd_models

    before = loaded.sd_model
    with WebuiHost().borrow() as model:
        sd_models.unload_model_weights()
        assert loaded.sd_model is before
        encode(model, PLAIN)
    assert loaded.sd_model is None


@pytest.mark.parametrize("places", [["meta"], ["meta", "cpu"]], ids=["unload", "unload, load"])
def test_buttons_that_move_the_checkpoint_have_to_wait_for_the_job(
    loaded: Any, models: dict[Family, Any], places: list[str]
) -> None:
    """AUTOMATIC1111's, since 1.7, call a function that they keep."""
    from model import copied, put_in

    theirs = put_in(copied(models["sd1"]))
    with WebuiHost().borrow() as model:
        for place in places:
            theirs.to(place)
        assert not any(parameter.is_meta for parameter in theirs.parameters())
        encode(model, PLAIN)
    assert all(parameter.device.type == places[-1] for parameter in theirs.parameters())
    assert "to" not in vars(theirs)


def test_an_early_api_has_to_wait_too(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.6 it keeps the function itself."""
    from modules import sd_models

    api: Any = ModuleType("modules.api.api")
    api.unload_model_weights = sd_models.unload_model_weights
    monkeypatch.setitem(sys.modules, "modules.api.api", api)
    with WebuiHost().borrow() as model:
        api.unload_model_weights()
        assert loaded.sd_model is not None
        encode(model, PLAIN)
    assert loaded.sd_model is None


def test_reforges_buttons_have_to_wait_too(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    monkeypatch.setitem(sys.modules, "modules.sd_models_xl", SimpleNamespace(move_clip_to_gpu=lambda: None))
    forge_clip = SimpleNamespace(move_clip_to_gpu=lambda: None)
    monkeypatch.setitem(sys.modules, "modules_forge", SimpleNamespace(forge_clip=forge_clip))
    theirs = SimpleNamespace(to=moved.append)
    with ReforgePipeline(theirs)._kept_loaded():
        theirs.to("cpu")
        assert moved == []
    assert moved == ["cpu"]


def test_of_several_calls_that_are_put_off_the_last_one_is_made() -> None:
    made: list[Any] = []
    owner = SimpleNamespace(call=lambda *arguments, **named: made.append((arguments, named)))
    with put_off(owner, "call"):
        assert owner.call(1) is None
        owner.call(2, by="hand")
    assert made == [((2,), {"by": "hand"})]
    with put_off(owner, "call"):
        pass
    assert len(made) == 1
