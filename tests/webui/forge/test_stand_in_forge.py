"""Forge and Forge Neo, against a stand-in of their modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

import torch
from fastapi import FastAPI
from hosts.contract import PLAIN, HostContract, encode, only, sample
from jobs.test_jobs import ended
from suites import quick_first
from torch import nn

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.model.host import Family
from embedding_estimate.settings import Settings

QUICK = {"text": "(red:1.5) circle", "name": "zebra-two", "part": "Transformer", "tokens": 2, "learning_steps": 3}
FACES = pytest.mark.parametrize("webui_kind", quick_first(1, ["Forge", "Neo"]), indirect=True)


@pytest.mark.parametrize(
    ("webui_kind", "family"),
    quick_first(
        1, [("Neo", "sdxl"), ("Neo", "sd1"), ("Neo", "sd2"), ("Forge", "sd1"), ("Forge", "sd2"), ("Forge", "sdxl")]
    ),
    indirect=["webui_kind"],
)
class TestContract(HostContract):
    @pytest.fixture
    def host(self, put: Callable[[Family], Any], family: Family) -> WebuiHost:
        put(family)
        return WebuiHost()

    @pytest.fixture
    def modules(self, host: WebuiHost) -> Sequence[nn.Module]:
        from modules import sd_models

        model, _ = sd_models.forge_model_reload()
        objects = model.forge_objects_original
        return [objects.clip.cond_stage_model, objects.unet.model]


def registered(database: Any) -> list[str]:
    return sorted(database.word_embeddings)


@pytest.mark.slow
def test_nothing_is_loaded_before_the_first_job_and_the_page_is_asked_each_time(
    put: Callable[[Family], Any], shared: Any
) -> None:
    from forge_model import choose

    first = put("sd1")
    assert shared.sd_model is None
    with WebuiHost().borrow() as model:
        assert model.info.family == "sd1" and shared.sd_model.sd_checkpoint_info is first
    put("sdxl")
    with WebuiHost().borrow() as model:
        assert (model.info.family, model.info.default_size) == ("sdxl", 1024)
    choose(first)
    with WebuiHost().borrow() as model:
        assert model.info.family == "sd1"


def test_where_no_page_was_built_the_choice_is_read_from_the_settings(chosen: Any) -> None:
    from modules import sd_models

    sd_models.model_data.forge_loading_parameters = {}
    with WebuiHost().borrow() as model:
        assert model.info.family == "sd1"


@FACES
def test_tokens_are_counted_once_a_model_is_loaded(chosen: Any) -> None:
    from modules import sd_models

    from embedding_estimate.hosts.webui import extension

    with pytest.raises(
        ModelError, match=r"^no checkpoint is loaded yet: the WebUI loads it for the first image or job$"
    ):
        extension.place().token_count("a circle")
    sd_models.forge_model_reload()
    assert extension.place().token_count("a circle # of many words <lora:painting:1>") == 2


@FACES
def test_a_new_name_is_known_everywhere_at_once(loaded: Any, tmp_path: Path) -> None:
    from modules import processing, sd_models, ui_extra_networks_textual_inversion

    from embedding_estimate.hosts.webui import extension

    class Api:
        def __init__(self) -> None:
            self.embedding_db = ui_extra_networks_textual_inversion.EmbeddingDatabase()

        def get_embeddings(self) -> dict[str, Any]:
            return {}

    api, app = Api(), FastAPI()
    app.add_api_route("/sdapi/v1/embeddings", api.get_embeddings)
    extension.routes(None, app)
    processing.StableDiffusionProcessing.cached_c[:] = ["zebra-two in rain", "its conditioning"]
    job = extension.place().jobs.start(Settings(**{**QUICK, "measure": "Nothing"}))
    ended(job)
    assert job.state == "done", job.problems
    of_cards = ui_extra_networks_textual_inversion.embedding_db
    databases = [sd_models.model_data.sd_model.text_processing_engine.embeddings, of_cards, api.embedding_db]
    assert [registered(database) for database in databases] == [["zebra-two"]] * 3
    assert processing.StableDiffusionProcessing.cached_c == [None, None]
    with WebuiHost().borrow() as model:
        assert model.embedding_names() == ["zebra-two"]
        vectors = model.token_vectors("zebra-two")["clip_l"]
        torch.testing.assert_close(vectors, job.saved.estimate.embedding.vectors["clip_l"])


@FACES
def test_what_runs_at_each_image_says_what_it_has_to_say(loaded: Any) -> None:
    from embedding_estimate.hosts.webui import extension, use_warnings

    job = extension.place().jobs.start(Settings(**{**QUICK, "measure": "Nothing"}))
    ended(job)
    said: list[str] = []
    image = SimpleNamespace(all_prompts=["a zebra-two"], steps=20, comment=said.append)
    use_warnings.comment(image)
    assert said == []
    loaded.opts.emphasis = "No norm"
    use_warnings.comment(image)
    assert said == ["zebra-two was made for the emphasis mode Original, and it is No norm now"]


def test_what_runs_at_each_image_does_nothing_for_a_family_without_embeddings(shared: Any) -> None:
    from embedding_estimate.hosts.webui import use_warnings

    shared.sd_model = SimpleNamespace(text_processing_engine_t5=object())
    use_warnings.comment(SimpleNamespace(all_prompts=["a zebra-two"], steps=20))


@FACES
def test_a_job_leaves_no_word_in_the_next_infotext_and_the_engines_as_they_were(loaded: Any) -> None:
    from backend.text_processing.classic_engine import infotext

    engine = loaded.sd_model.text_processing_engine
    before = engine.clip_skip, engine.emphasis.name
    loaded.opts.emphasis, loaded.opts.CLIP_stop_at_last_layers = "No norm", 2
    with WebuiHost().borrow() as model:
        assert (engine.clip_skip, engine.emphasis.name, model.info.clip_skip) == (2, "No norm", 2)
        encode(model, "(red:1.5) circle")
        assert infotext() == {"Emphasis": "No norm"}
    assert infotext() == {}
    loaded.opts.emphasis = "Original"
    if not isinstance(getattr(type(engine), "emphasis", None), property):
        assert "emphasis" in vars(engine)
    assert engine.clip_skip == before[0]


def test_an_attention_without_gradient_is_replaced_for_the_job(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from backend import attention
    from backend.nn import unet

    monkeypatch.setattr(unet, "attention_function", attention.attention_sage)
    with WebuiHost().borrow():
        assert unet.attention_function is attention.attention_pytorch
    assert unet.attention_function is attention.attention_sage


@pytest.mark.parametrize("by", ["setting", "checkpoint"])
def test_zero_terminal_snr_holds_for_the_job(loaded: Any, by: str) -> None:
    predictor = loaded.sd_model.forge_objects.unet.model.predictor
    before = predictor.sigmas
    if by == "setting":
        loaded.opts.sd_noise_schedule = "Zero Terminal SNR"
    else:
        loaded.sd_model.model_config.ztsnr = True
    with WebuiHost().borrow() as model:
        assert float(predictor.sigmas[-1]) > 4000 > 20 > float(before[-1])
        seen: list[float] = []

        def denoise(x: torch.Tensor, sigma: torch.Tensor, evaluation: int) -> torch.Tensor:
            seen.append(float(sigma[0]))
            return x

        sample(model, only(encode(model, PLAIN)), [1], denoise=denoise)
        assert seen[0] > 4000
    assert torch.equal(predictor.sigmas, before)


@pytest.mark.parametrize("button", ["interrupted", "stopping_generation", "skipped"])
def test_each_of_the_webuis_buttons_stops(loaded: Any, button: str) -> None:
    host = WebuiHost()
    with host.borrow():
        assert not host.show("Attention", 1, 10)
        setattr(loaded.state, button, True)
        assert host.show("Attention", 2, 10)
    assert not getattr(loaded.state, button)
