"""The adapter and all that the WebUI calls, against a stand-in of its modules: no WebUI is needed."""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

from elsewhere import DEVICE, pretended
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hosts.contract import HostContract
from jobs.test_jobs import ended
from suites import quick_first
from torch import nn

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.hosts.webui.txt2img import Txt2img
from embedding_estimate.model.host import Family
from embedding_estimate.settings import Settings


@pytest.mark.parametrize("family", quick_first(1, ["sd1", "sd2", "sdxl"]))
class TestContract(HostContract):
    @pytest.fixture
    def host(self, shared: Any, models: dict[Family, Any], family: Family) -> WebuiHost:
        from model import put_in

        put_in(models[family])
        return WebuiHost()

    @pytest.fixture
    def modules(self, host: WebuiHost, shared: Any) -> Sequence[nn.Module]:
        return [shared.sd_model]


@pytest.mark.slow  # each operator of torch goes through Python
class TestElsewhere(HostContract):
    """On a device that is not the CPU."""

    test_all_rows_together_foresee_what_the_prediction_does = None  # mathematics, and slow here

    @pytest.fixture
    def host(self, shared: Any, models: dict[Family, Any]) -> Iterator[WebuiHost]:
        from model import copied, put_in

        with pretended():
            shared.device = DEVICE
            put_in(copied(models["sdxl"]))
            yield WebuiHost()

    @pytest.fixture
    def modules(self, host: WebuiHost, shared: Any) -> Sequence[nn.Module]:
        return [shared.sd_model]


@pytest.mark.parametrize(("chosen", "steps"), [(25, 25), (-5, 0), (None, 0)])
def test_the_settings_page_has_defaults_for_tab_and_api(loaded: Any, chosen: Any, steps: int) -> None:
    from embedding_estimate.hosts.webui import extension, options

    options.add()
    own = {"attention_memory": 512, "checkpointing": False, "format": "safetensors", "preview_every": 0}
    own["measure"] = "By effort"
    assert extension.place().defaults() == own
    loaded.opts.embedding_estimate_format, loaded.opts.embedding_estimate_preview_every = "pt", chosen
    loaded.opts.embedding_estimate_checkpointing = True
    assert extension.place().defaults() == {**own, "checkpointing": True, "format": "pt", "preview_every": steps}
    app = FastAPI()
    extension.routes(None, app)
    TestClient(app).post("/embedding-estimate/v1/estimate", json={"text": "a", "name": "it", "measure": "Nothing"})
    job = extension.place().jobs.latest
    ended(job)
    assert (job.settings.format, job.settings.preview_every, job.settings.checkpointing) == ("pt", steps, True)


def test_extra_networks_are_active_while_the_model_is_borrowed(loaded: Any) -> None:
    from modules import extra_networks

    text = "a <lora:painting:0.8> circle"
    with WebuiHost([text, ""]).borrow() as model:
        assert extra_networks.active == ["lora:painting:0.8"]
        assert model.notes(text) == ["type <lora:painting:0.8> beside it: no vectors can do what it does"]
        assert model.token_ids("a  circle") == model.token_ids("a circle")
        assert len(model.token_vectors(text)["clip_l"]) == 2
    assert extra_networks.active == []


def test_a_network_that_the_settings_add_is_active_and_named(loaded: Any) -> None:
    from modules import extra_networks

    loaded.opts.sd_lora = "painting"
    with WebuiHost(["a <lora:oil:0.8> circle"]).borrow() as model:
        assert extra_networks.active == ["lora:oil:0.8", "lora:painting:1.0"]
        typed, added = model.notes("a <lora:oil:0.8> circle")
        assert "<lora:oil:0.8>" in typed and "made with <lora:painting:1.0>" in added
        assert model.notes("a circle") == [added]
    with WebuiHost(["a <lora:painting:0.8> circle"]).borrow() as model:
        assert model.notes("a circle") == []  # what is typed comes before the settings


@pytest.mark.parametrize(
    ("family", "chosen", "own_setting", "least", "heeded"),
    [
        ("sd1", 2, False, None, 2),
        ("sd2", 2, True, None, 1),
        ("sdxl", 2, False, None, 1),
        ("sdxl", 2, True, None, 2),
        ("sdxl", 2, False, 2, 1),  # reForge, where SDXL ends at that layer anyway
        ("sdxl", 3, False, 2, 3),
    ],
)
def test_clip_skip_is_what_the_family_heeds_of_the_setting(
    loaded: Any, family: Family, chosen: int, own_setting: bool, least: int | None, heeded: int
) -> None:
    from embedding_estimate.hosts.webui.a1111.kind import Automatic1111
    from embedding_estimate.hosts.webui.reforge.kind import Reforge

    loaded.opts.CLIP_stop_at_last_layers, loaded.opts.sdxl_clip_l_skip = chosen, own_setting
    if least:
        loaded.sd_model.cond_stage_model.minimal_clip_skip = least
    webui = Reforge() if least else Automatic1111()
    assert webui.clip_skip(loaded.sd_model, family) == heeded


def test_networks_of_templates_are_active_too(loaded: Any) -> None:
    from modules import extra_networks

    from embedding_estimate.hosts.webui import extension

    host = extension._host(Settings(text="red", name="x", templates="{}\n{} <lora:painting:1>"))
    with host.borrow():
        assert extra_networks.active == ["lora:painting:1"]


@pytest.mark.parametrize("fails", [False, True])
def test_tokens_are_merged_as_the_settings_say(loaded: Any, fails: bool) -> None:
    from modules.sd_models import Merged

    loaded.opts.token_merging_ratio = 0.5
    with suppress(ZeroDivisionError), WebuiHost().borrow() as model:
        assert isinstance(loaded.sd_model.model, Merged) and model.notes("a circle") == []
        _ = 1 / (not fails)
    assert type(loaded.sd_model.model) is nn.Module


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"is_sd3": True}, "Stable Diffusion 3"),
        ({"cond_stage_key": "edit"}, "instruct-pix2pix"),
        ({"is_sdxl_inpaint": True}, "inpainting"),
    ],
)
def test_unsupported_checkpoints_are_refused_by_name(loaded: Any, change: dict[str, Any], said: str) -> None:
    for name, value in change.items():
        setattr(loaded.sd_model, name, value)
    with pytest.raises(ModelError, match=said), WebuiHost().borrow():
        pass


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        ({}, None),
        ({"api_auth": "ann:secret,bob:x"}, ("bob", "x")),
        ({"gradio_auth": "cat:y"}, ("cat", "y")),
        ({"api_auth": "ann:secret", "gradio_auth": "cat:y"}, ("ann", "secret")),
    ],
)
def test_the_api_asks_for_the_hosts_credentials(
    loaded: Any, arguments: dict[str, str], needed: tuple[str, str] | None
) -> None:
    from embedding_estimate.hosts.webui import extension

    for name in ("api_auth", "gradio_auth"):
        setattr(loaded.cmd_opts, name, arguments.get(name))
    app = FastAPI()
    extension.routes(None, app)
    client = TestClient(app)
    path = "/embedding-estimate/v1/embeddings"
    assert client.get(path).status_code == (401 if needed else 200)
    assert client.get(path, auth=needed).status_code == 200


@pytest.mark.parametrize(("api", "nowebui", "code"), [(False, False, 404), (True, False, 200), (False, True, 200)])
def test_there_is_an_api_where_the_host_has_one(loaded: Any, api: bool, nowebui: bool, code: int) -> None:
    from embedding_estimate.hosts.webui import extension

    loaded.cmd_opts.api, loaded.cmd_opts.nowebui = api, nowebui
    app = FastAPI()
    extension.routes(None, app)
    assert TestClient(app).get("/embedding-estimate/v1/embeddings").status_code == code


def test_txt2img_is_read_as_it_stands_with_its_styles(shared: Any) -> None:
    page = Txt2img()
    sampling = SimpleNamespace(choices=["Euler a", "DPM++ SDE"])
    for name, component in {"txt2img_prompt": "box", "txt2img_sampling": sampling, "img2img_steps": "slider"}.items():
        page.notice(component, elem_id=name)
    page.notice("none of its own")
    assert page.components == {"Prompt": "box", "Sampler": sampling}
    told = page.as_infotext({"Prompt": "a circle", "Negative prompt": "", "Sampler": 1, "Styles array": ["old"]})
    assert (told["Prompt"], told["Negative prompt"]) == ("a circle, an old painting", ", photo")
    assert told["Sampler"] == "DPM++ SDE"  # an early WebUI tells the place in the list
    assert page.as_infotext({"Prompt": "a", "Sampler": "Euler a"})["Sampler"] == "Euler a"


def test_an_infotext_is_read_by_the_webui_and_keeps_its_styles(loaded: Any) -> None:
    from embedding_estimate.hosts.webui import extension

    told = extension.place().infotext("a circle, an old painting\nSteps: 7")
    assert (told["Prompt"], told["Negative prompt"]) == ("a circle, an old painting", "grey, photo")
    assert told["Steps"] == "7"


def test_the_script_registers_everything(loaded: Any, event_loops: None) -> None:
    from modules import script_callbacks

    root = Path(__file__).parents[2]
    script = runpy.run_path(str(root / "scripts" / "embedding_estimate.py"))
    said: list[str] = []
    image = SimpleNamespace(all_prompts=["a red circle"], all_negative_prompts=[], steps=20, comment=said.append)
    script["Comments"]().process_batch(image, batch_number=0)
    assert said == []
    assert set(script_callbacks.registered) == {"component", "tabs", "settings", "app"}
    ((_, title, element),) = script_callbacks.registered["tabs"]()
    assert (title, element) == ("Embedding Estimate", "embedding_estimate")
