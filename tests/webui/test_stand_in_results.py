"""What becomes of a job and of what it leaves behind, against the stand-in of the WebUI's modules."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

import torch
from jobs.test_jobs import ended
from PIL import Image

from embedding_estimate.errors import ModelError, NameTaken, SettingsError
from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("brief")]  # each runs a job to its end


def finished(loaded: Any, **settings: Any) -> Any:
    from embedding_estimate.hosts.webui import extension

    given = {"text": "(red:1.5) circle", "name": "zebra-two", "part": "Transformer", "tokens": 2, "learning_steps": 3}
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
        [live] = model.encode_vectors(job.saved.estimate.embedding.vectors, ["{}, blue"], width=64, height=64)
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


def test_the_card_tells_the_typed_weight(loaded: Any, tmp_path: Path) -> None:
    loaded.opts.emphasis = "Original"
    finished(loaded, typed_weight=1.2, measure="Nothing")
    card = json.loads((tmp_path / "embeddings" / "zebra-two.json").read_text("utf-8"))
    assert "To be typed as (zebra-two:1.2)" in card["description"]


def test_a_private_prompt_is_not_on_the_card(loaded: Any, tmp_path: Path) -> None:
    finished(loaded, private=True, text="(red:1.5) circle <lora:circle:1>", templates="a circle, {}\n{}")
    assert "circle" not in (tmp_path / "embeddings" / "zebra-two.json").read_text("utf-8")


def test_overwriting_keeps_what_the_user_put_on_the_card(loaded: Any, tmp_path: Path) -> None:
    finished(loaded)
    card, picture = (tmp_path / "embeddings" / f"zebra-two{end}" for end in (".json", ".preview.png"))
    card.write_text(json.dumps({"notes": "mine", "description": "old", "sd version": "SD2"}), "utf-8")
    drawn = picture.read_bytes()
    finished(loaded, overwrite=True, text="(blue:1.5) star", seed=1)
    told = json.loads(card.read_text("utf-8"))
    assert told["notes"] == "mine" and "(blue:1.5) star" in told["description"] and told["sd version"] == "SD1"
    assert picture.read_bytes() != drawn
    Image.new("RGB", (8, 8)).save(picture)
    card.write_text("no json", "utf-8")
    finished(loaded, overwrite=True)
    with Image.open(picture) as kept:
        assert kept.size == (8, 8)
    assert "(red:1.5) circle" in json.loads(card.read_text("utf-8"))["description"]


def test_a_network_that_is_not_there_is_no_surprise_at_the_end(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    painting = SimpleNamespace(name="paint", mentioned_name="painting")
    monkeypatch.setitem(sys.modules, "networks", SimpleNamespace(loaded_networks=[painting]))
    oil = SimpleNamespace(name="its old name", filename="models/hypernetworks/oil.pt")
    loaded.loaded_hypernetworks = [oil]
    text = "circle <lora:painting:0.8> <lora:panting:1> <hypernet:oil:1> <hypernet:other:1> <unknown:x>"
    job = finished(loaded, text=text)
    assert (job.state, job.problems) == (
        "failed",
        ["<lora:panting:1> <hypernet:other:1> could not be loaded: mend the name, or drop it"],
    )
    del loaded.loaded_hypernetworks  # a WebUI without any does not tell
    with WebuiHost(["<hypernet:other:1>"]).borrow():
        pass
    loaded.loaded_hypernetworks = []
    assert finished(loaded, text="(red:1.5) circle <lora:painting:0.8>", measure="Nothing").state == "done"


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
    with pytest.raises(SettingsError, match=r"^'\.\./elsewhere' as .* in Settings is .*: choose one in .*embeddings$"):
        finished(loaded, name="zebra-four", measure="Nothing")


@pytest.mark.parametrize("button", ["interrupted", "skipped"])
def test_the_hosts_buttons_save_and_its_state_is_left_clean(
    loaded: Any, monkeypatch: pytest.MonkeyPatch, button: str
) -> None:
    show = WebuiHost.show

    def pressed(self: WebuiHost, phase: str, done: int, total: int) -> bool:
        setattr(loaded.state, button, phase == "train")
        return show(self, phase, done, total)

    monkeypatch.setattr(WebuiHost, "show", pressed)
    job = finished(loaded, learning_steps=100_000)
    assert job.state == "done" and job.saved.estimate.stopped == "interrupted"
    assert not getattr(loaded.state, button) and loaded.state.job == ""


def test_comments_are_left_out_wherever_a_prompt_is_typed(loaded: Any) -> None:
    from embedding_estimate.hosts.webui import extension, use_warnings

    place = extension.place()
    job = finished(
        loaded,
        text="(red:1.5) circle # <lora:painting:0.8>",
        other_prompt="# of the first\ngrey",
        templates="{}\n# none inside, and that is all right\na {}",
        initial_prompt="red # and no more",
        tokens=1,
        measure="Nothing",
    )
    assert job.state == "done"
    assert [note.partition(" ")[0] for note in job.notes] == ["other_prompt:", "part='Transformer'"]  # of no comment
    told = job.saved.estimate.embedding.provenance["settings"]
    assert (told["text"].strip(), job.settings.other_prompts) == ("(red:1.5) circle", ("grey",))
    assert (job.settings.template_list, told["initial_prompt"].strip()) == (("{}", "a {}"), "red")
    assert place.token_count("red # and no more") == place.token_count("red") == 1
    told = place.as_infotext({"Prompt": "a circle\n# a square", "Negative prompt": "# no\ngrey", "Styles array": []})
    assert (told["Prompt"].split(), told["Negative prompt"].split()) == (["a", "circle"], ["grey"])
    loaded.opts.CLIP_stop_at_last_layers = 2
    said: list[str] = []
    commented = {"all_prompts": ["blue # zebra-two"], "all_negative_prompts": [], "steps": 20, "comment": said.append}
    use_warnings.comment(SimpleNamespace(**commented))
    assert said == []

    loaded.opts.enable_prompt_comments = False
    assert place.token_count("red # and no more") > 1


def test_without_a_checkpoint(loaded: Any) -> None:
    loaded.sd_model = None
    job = finished(loaded)
    assert job.state == "failed" and "no checkpoint is loaded" in job.problems[0]
    with pytest.raises(ModelError, match="no checkpoint"):
        from embedding_estimate.hosts.webui import extension

        extension.place().token_count("a")
    with pytest.raises(ModelError, match="no checkpoint"):
        extension.place().name_warnings("a")


def test_a_name_is_looked_at_with_the_loaded_model_and_its_embeddings(loaded: Any) -> None:
    """While a job has the queue, too."""
    from modules.call_queue import queue_lock

    from embedding_estimate.hosts.webui import extension

    (line,) = extension.place().name_warnings("red")
    assert line.startswith("red: every prompt with these ordinary words would call it")
    finished(loaded, name="zebra-two", measure="Nothing")
    with queue_lock:
        lines = extension.place().name_warnings("zebra-two-three")
    assert any(line.startswith("zebra-two-three: begins with zebra-two, and is called instead") for line in lines)
