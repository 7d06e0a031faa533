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
from hosts.contract import PLAIN, HostContract, encode, encode_vectors, latent, only, sample
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


@pytest.mark.parametrize("button", ["interrupted", "stopping_generation"])
def test_both_of_the_webuis_buttons_stop(loaded: Any, button: str) -> None:
    host = WebuiHost()
    with host.borrow():
        assert not host.show("Attention", 1, 10)
        setattr(loaded.state, button, True)
        assert host.show("Attention", 2, 10)
    assert not getattr(loaded.state, button)
