"""The adapter and all that the WebUI calls, against a stand-in of its modules: no WebUI is needed."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hosts.contract import HostContract
from PIL import Image
from test_jobs import ended
from torch import nn

from embedding_estimate.demo.random_models import Family, random_model
from embedding_estimate.errors import ModelError, NameTaken
from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.hosts.webui.txt2img import Txt2img
from embedding_estimate.settings import Settings

STAND_IN = Path(__file__).with_name("stand_in")
THEIRS = ("modules", "k_diffusion", "model")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    families: tuple[Family, ...] = ("sd1", "sd2", "sdxl")
    return {family: random_model(family, tmp_path_factory.mktemp("models") / family) for family in families}


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in's `modules.shared`, new for each test."""
    monkeypatch.syspath_prepend(STAND_IN)
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in THEIRS}
    from modules import shared

    yield shared
    for name in list(sys.modules):
        if name.partition(".")[0] in THEIRS:
            del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
class TestContract(HostContract):
    @pytest.fixture
    def host(self, shared: Any, folders: dict[Family, Path], family: Family) -> WebuiHost:
        from model import load

        load(folders[family])
        return WebuiHost()

    @pytest.fixture
    def modules(self, host: WebuiHost, shared: Any) -> Sequence[nn.Module]:
        return [shared.sd_model]


@pytest.fixture
def loaded(shared: Any, folders: dict[Family, Path], tmp_path: Path) -> Any:
    """The stand-in with SD1 loaded, folders of its own, and nothing left over in the extension."""
    from model import load

    from embedding_estimate.hosts.webui import extension

    shared.cmd_opts.embeddings_dir = str(tmp_path / "embeddings")
    load(folders["sd1"])
    extension.place.cache_clear()
    return shared


def finished(loaded: Any, **settings: Any) -> Any:
    from embedding_estimate.hosts.webui import extension

    given = {"text": "(red:1.5) circle", "name": "zebra-two", "tokens": 2, "learning_steps": 3, "steps": 2}
    job = extension.place().jobs.start(Settings(**given | settings))
    ended(job)
    return job


def test_a_result_works_in_the_next_prompt(loaded: Any) -> None:
    from modules.sd_hijack import model_hijack

    job = finished(loaded)
    assert (job.state, job.problems) == ("done", [])
    assert list(model_hijack.embedding_db.word_embeddings) == ["zebra-two"]
    with WebuiHost().borrow() as model:
        typed = model.encode("zebra-two, blue", evaluations=2, width=64, height=64)[0].parts[0][0]
        live = model.encode_vectors(job.saved.estimate.embedding.vectors, "{}, blue", width=64, height=64)
    torch.testing.assert_close(typed.context, live.context, rtol=1e-4, atol=1e-4)


def test_the_card_has_a_picture_and_a_description(loaded: Any, tmp_path: Path) -> None:
    finished(loaded)
    folder = tmp_path / "embeddings"
    assert {path.name for path in folder.iterdir()} == {
        "zebra-two.safetensors",
        "zebra-two.json",
        "zebra-two.preview.png",
    }
    card = json.loads((folder / "zebra-two.json").read_text("utf-8"))
    assert "(red:1.5) circle" in card["description"] and card["sd version"] == "SD1"
    with Image.open(folder / "zebra-two.preview.png") as picture:
        assert picture.size == (64, 64)
    assert (tmp_path / "embeddings-reports" / "zebra-two.png").is_file()


def test_a_private_prompt_is_not_on_the_card(loaded: Any, tmp_path: Path) -> None:
    finished(loaded, private=True)
    assert "circle" not in (tmp_path / "embeddings" / "zebra-two.json").read_text("utf-8")


def test_the_sub_folder_is_a_setting_and_names_are_unique_in_the_whole_tree(loaded: Any, tmp_path: Path) -> None:
    from embedding_estimate.hosts.webui import options

    options.add()
    assert finished(loaded, measure="Nothing").saved.path == tmp_path / "embeddings" / "zebra-two.safetensors"
    loaded.opts.embedding_estimate_folder = "mine"
    with pytest.raises(NameTaken):
        finished(loaded)
    job = finished(loaded, name="zebra-three", measure="Nothing", save_every=2)
    assert job.saved.path == tmp_path / "embeddings" / "mine" / "zebra-three.safetensors"
    assert [path.name for path in (tmp_path / "embeddings-steps" / "zebra-three").iterdir()] == [
        "zebra-three-000002.safetensors"
    ]
    loaded.opts.embedding_estimate_folder = "../elsewhere"  # leads out of what the WebUI reads
    assert finished(loaded, name="zebra-four", measure="Nothing").saved.path.parent == tmp_path / "embeddings"


@pytest.mark.parametrize(("chosen", "steps"), [(25, 25), (-5, 0), (None, 0)])
def test_the_settings_page_has_defaults_for_tab_and_api(loaded: Any, chosen: Any, steps: int) -> None:
    from embedding_estimate.hosts.webui import extension, options

    options.add()
    assert extension.place().defaults() == {"format": "safetensors", "preview_every": 0}
    loaded.opts.embedding_estimate_format, loaded.opts.embedding_estimate_preview_every = "pt", chosen
    assert extension.place().defaults() == {"format": "pt", "preview_every": steps}
    app = FastAPI()
    extension.routes(None, app)
    TestClient(app).post("/embedding-estimate/v1/estimate", json={"text": "a", "name": "it", "measure": "Nothing"})
    job = extension.place().jobs.latest
    ended(job)
    assert (job.settings.format, job.settings.preview_every) == ("pt", steps)


def test_the_hosts_interrupt_button_saves_and_its_state_is_left_clean(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = WebuiHost.show

    def pressed(self: WebuiHost, phase: str, done: int, total: int) -> bool:
        loaded.state.interrupted = phase == "train"
        return show(self, phase, done, total)

    monkeypatch.setattr(WebuiHost, "show", pressed)
    job = finished(loaded, learning_steps=100_000)
    assert job.state == "done" and job.saved.estimate.stopped == "interrupted"
    assert not loaded.state.interrupted and loaded.state.job == ""


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


@pytest.mark.parametrize("fails", [False, True])
def test_tokens_are_merged_as_the_settings_say(loaded: Any, fails: bool) -> None:
    from modules.sd_models import Merged

    loaded.opts.token_merging_ratio = 0.5
    with suppress(ZeroDivisionError), WebuiHost().borrow() as model:
        assert isinstance(loaded.sd_model.model, Merged) and model.notes("a circle") == []
        _ = 1 / (not fails)
    assert type(loaded.sd_model.model) is nn.Module


def test_comments_are_left_out_wherever_a_prompt_is_typed(loaded: Any) -> None:
    from embedding_estimate.hosts.webui import extension, use

    place = extension.place()
    job = finished(
        loaded,
        text="(red:1.5) circle # <lora:painting:0.8>",
        other_prompt="# of the first\ngrey",
        templates="{}\n# none inside, and that is all right\na {}",
        initial_prompt="red # and no more",
        measure="Nothing",
    )
    assert (job.state, job.notes) == ("done", [])
    told = job.saved.estimate.embedding.provenance["settings"]
    assert (told["text"].strip(), job.settings.other_prompts) == ("(red:1.5) circle", ("grey",))
    assert (job.settings.template_list, told["initial_prompt"].strip()) == (("{}", "a {}"), "red")
    assert place.token_count("red # and no more") == place.token_count("red") == 1
    told = place.told({"Prompt": "a circle\n# a square", "Negative prompt": "# no\ngrey", "Styles array": []})
    assert (told["Prompt"].split(), told["Negative prompt"].split()) == (["a", "circle"], ["grey"])
    loaded.opts.CLIP_stop_at_last_layers = 2
    image = Processing("blue # zebra-two")
    use.comment(image)
    assert image.said == []

    loaded.opts.enable_prompt_comments = False
    assert place.token_count("red # and no more") > 1


def test_without_a_checkpoint(loaded: Any) -> None:
    loaded.sd_model = None
    job = finished(loaded)
    assert job.state == "failed" and "no checkpoint is loaded" in job.problems[0]
    with pytest.raises(ModelError, match="no checkpoint"):
        from embedding_estimate.hosts.webui import extension

        extension.place().token_count("a")


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


def test_forge_is_refused_by_name(loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backend.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="this is Forge"), WebuiHost().borrow():
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


def test_no_api_without_the_hosts(loaded: Any) -> None:
    from embedding_estimate.hosts.webui import extension

    loaded.cmd_opts.api = False
    app = FastAPI()
    extension.routes(None, app)
    assert TestClient(app).get("/embedding-estimate/v1/embeddings").status_code == 404


class Processing:
    """What a script's `process` is given."""

    def __init__(self, prompt: str, negative: str = ""):
        self.all_prompts, self.all_negative_prompts = [prompt], [negative]
        self.said: list[str] = []

    def comment(self, text: str) -> None:
        self.said.append(text)


def test_using_an_embedding_otherwise_than_it_was_made_for_is_said(loaded: Any) -> None:
    from embedding_estimate.hosts.webui import use

    def said(prompt: str, negative: str = "") -> list[str]:
        image = Processing(prompt, negative)
        use.comment(image)
        return image.said

    loaded.opts.emphasis = "No norm"
    text = "(red:1.5) circle <lora:painting:0.8>"
    job = finished(loaded, text=text, measure="Nothing")
    assert any("emphasis mode No norm" in note for note in job.notes)
    assert any("<lora:painting:0.8>" in note for note in job.notes)

    assert said("a zebra-two <lora:painting:0.8>") == []
    assert said("a zebra-one") == []
    assert said("", "zebra-two") == ["zebra-two was made with <lora:painting:0.8>, which the prompt lacks"]
    loaded.opts.CLIP_stop_at_last_layers, loaded.opts.emphasis = 2, "Original"
    assert said("zebra-two <lora:painting:0.8>") == [
        "zebra-two was made for clip skip 1, and it is 2 now, for the emphasis mode No norm, and it is Original now"
    ]


def test_txt2img_is_read_as_it_stands_with_its_styles(shared: Any) -> None:
    page = Txt2img()
    sampling = SimpleNamespace(choices=["Euler a", "DPM++ SDE"])
    for name, component in {"txt2img_prompt": "box", "txt2img_sampling": sampling, "img2img_steps": "slider"}.items():
        page.notice(component, elem_id=name)
    page.notice("none of its own")
    assert page.components == {"Prompt": "box", "Sampler": sampling}
    told = page.told({"Prompt": "a circle", "Negative prompt": "", "Sampler": 1, "Styles array": ["old"]})
    assert (told["Prompt"], told["Negative prompt"]) == ("a circle, an old painting", ", photo")
    assert told["Sampler"] == "DPM++ SDE"  # an early WebUI tells the place in the list
    assert page.told({"Prompt": "a", "Sampler": "Euler a"})["Sampler"] == "Euler a"


def test_an_infotext_is_read_by_the_webui_and_keeps_its_styles(loaded: Any) -> None:
    from embedding_estimate.hosts.webui import extension

    told = extension.place().infotext("a circle, an old painting\nSteps: 7")
    assert (told["Prompt"], told["Negative prompt"]) == ("a circle, an old painting", "grey, photo")
    assert told["Steps"] == "7"


def test_the_script_registers_everything(loaded: Any, event_loops: None) -> None:
    from modules import script_callbacks

    root = Path(__file__).parents[2]
    script = runpy.run_path(str(root / "scripts" / "embedding_estimate.py"))
    image = Processing("a red circle")
    script["Comments"]().process(image)
    assert image.said == []
    assert set(script_callbacks.registered) == {"component", "tabs", "settings", "app"}
    ((_, title, element),) = script_callbacks.registered["tabs"]()
    assert (title, element) == ("Embedding Estimate", "embedding_estimate")
