"""What is said beside images, and what runs at each image in WebUIs that are not known, against the stand-in."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

import torch
from jobs.test_jobs import ended

from embedding_estimate.files.embedding import Embedding, write
from embedding_estimate.settings import Settings

ROOT = Path(__file__).parents[2]


def finished(**settings: Any) -> Any:
    from embedding_estimate.hosts.webui import extension

    given = {"text": "(red:1.5) circle", "name": "zebra-two", "part": "Transformer", "tokens": 2, "learning_steps": 3}
    job = extension.place().jobs.start(Settings(**given | {"measure": "Nothing"} | settings))
    ended(job)
    return job


class Processing:
    """What a script's `process` is given."""

    def __init__(self, prompt: str, negative: str = "", hires: str = ""):
        self.all_prompts, self.all_negative_prompts = [prompt], [negative]
        self.all_hr_prompts = [hires] if hires else None
        self.said: list[str] = []
        self.steps = 20

    def comment(self, text: str) -> None:
        self.said.append(text)


MADE = {"version": "1", "typed_weight": 1.0, "clip_skip": 1, "emphasis": "Original"}


@pytest.fixture
def made(loaded: Any) -> Callable[..., Path]:
    """(name, provenance) -> the file of an embedding for the loaded model, which the WebUI knows then."""
    from modules.sd_hijack import model_hijack

    def make(name: str = "zebra-two", **provenance: Any) -> Path:
        folder = Path(loaded.cmd_opts.embeddings_dir)
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.safetensors"
        width = loaded.sd_model.cond_stage_model.wrapped.transformer.config.hidden_size
        write(Embedding(name, {"clip_l": torch.zeros(2, width)}, {**MADE, **provenance}), path, overwrite=True)
        model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
        return path

    return make


def said(*prompts: str) -> list[str]:
    """Beside an image with a prompt, a negative one, and one for its second pass."""
    from embedding_estimate.hosts.webui import use_warnings

    image = Processing(*prompts)
    use_warnings.comment(image)
    return image.said


def test_another_checkpoint_is_said_by_name(loaded: Any, made: Callable[..., Path]) -> None:
    here = loaded.sd_model.sd_checkpoint_info
    here.name_for_extra, here.shorthash = "landscapes", "0123456789"
    made(model={"name": "portraits", "hash": "abcdef0123", "family": "sd1"})
    line = "zebra-two was made for the checkpoint portraits [abcdef0123], and it is landscapes [0123456789] now"
    assert said("a zebra-two") == said("", "zebra-two") == said("a", "", "zebra-two") == [line]
    made(model={"name": "of another name", "hash": "0123456789", "family": "sd1"})
    assert said("a zebra-two") == []
    made(model={"name": "portraits", "hash": "", "family": "sd1"})  # nobody can tell
    assert said("a zebra-two") == []
    made(model={"name": "portraits", "hash": "abcdef0123", "family": "sd1"})
    here.shorthash = None  # with --no-hashing
    assert said("a zebra-two") == []


def test_a_name_that_is_read_as_words_is_said(loaded: Any, made: Callable[..., Path]) -> None:
    from modules.sd_hijack import model_hijack

    vectors = {"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(2, 1280)}
    path = made().with_name("yak.safetensors")
    write(Embedding("yak", vectors, {**MADE, "model": {"name": "xl", "hash": "abcdef0123", "family": "sdxl"}}), path)
    write(Embedding("theirs", vectors, {}), path.with_name("theirs.safetensors"))
    model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
    assert said("a yak, zebra-two, theirs") == [
        "yak was made for another family of models, so the WebUI reads the name as plain words"
    ]


@pytest.mark.parametrize(
    ("made_for", "prompt", "here"),
    [
        (1.3, "a (zebra-two:1.3)", ""),
        (1.3, "a zebra-two", "1"),
        (1.3, "a (zebra-two:1.2), blue", "1.2"),
        (1.3, "a (zebra-two:1.3), zebra-two", "1"),
        (1.3, "a (Zebra-Two, blue:1.3)", ""),
        (1.21, "((zebra-two))", ""),
        (1.3, "a [(zebra-two:1.3):blue:0.5]", ""),  # a schedule is no weight
        (1.3, "a [blue:zebra-two:0.5]", "1"),
        (1.3, "a blue [(zebra-two:1.3)|red]", ""),
        (1.3, "a (zebra-twos:1.3) <lora:zebra-two:1.3>", ""),
        (1.0, "a zebra-two", ""),
        (1.0, "a [zebra-two]", "0.909091"),
        (1.0, "a (zebra-two:0.8) AND (blue:1.3)", "0.8"),
    ],
)
def test_another_weight_is_said_with_the_one_to_type(
    loaded: Any, made: Callable[..., Path], made_for: float, prompt: str, here: str
) -> None:
    made(typed_weight=made_for)
    typed = {1.3: "(zebra-two:1.3)", 1.21: "(zebra-two:1.21)", 1.0: "zebra-two"}[made_for]
    line = f"zebra-two was made to be typed as {typed}, and has the weight {here} here"
    assert said(prompt) == ([line] if here else [])


def test_brackets_are_words_where_there_is_no_emphasis(loaded: Any, made: Callable[..., Path]) -> None:
    made(emphasis="None")
    loaded.opts.emphasis = "None"
    assert said("a (zebra-two:1.3)") == []


def test_nothing_is_said_of_files_that_are_not_ours(loaded: Any, made: Callable[..., Path]) -> None:
    from modules.sd_hijack import model_hijack

    path = made()
    write(Embedding("zebra-two", {"clip_l": torch.zeros(2, 32)}, {}), path, overwrite=True)
    assert said("(zebra-two:1.5)") == []
    path.unlink()
    assert said("(zebra-two:1.5)") == []
    model_hijack.embedding_db.word_embeddings["zebra-two"].filename = None  # out of a LoRA
    assert said("(zebra-two:1.5)") == []


@pytest.mark.parametrize(
    "strange",
    [
        {"model": "a name"},
        {"model": {"hash": 3}},
        {"settings": {"text": 3}},
        {"settings": [1]},
        {"networks": 3},
        {"networks": [3, None, "<", "<>", "<lora>"]},
        {"typed_weight": "heavy"},
        {"clip_skip": [2]},
        {"emphasis": {}},
    ],
)
def test_whatever_a_file_says_of_itself_no_image_fails(
    loaded: Any, made: Callable[..., Path], strange: dict[str, Any]
) -> None:
    made(**strange)
    assert all(line.startswith("zebra-two was made ") for line in said("a zebra-two"))


def test_a_file_is_read_once_until_it_is_another(
    loaded: Any, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding_estimate.hosts.webui import use_warnings

    path, readings, read = made(typed_weight=1.3), [], use_warnings.read
    monkeypatch.setattr(use_warnings, "read", lambda path: readings.append(path) or read(path))
    assert said("zebra-two") == said("zebra-two") == said("zebra-two, blue") != []
    assert readings == [path]
    made(typed_weight=1.0)
    os.utime(path, (1, 1))  # a clock may be coarse
    assert said("zebra-two") == [] and readings == [path, path]


def test_of_thousands_of_names_only_those_in_a_prompt_cost_anything(
    loaded: Any, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules.sd_hijack import model_hijack

    from embedding_estimate.hosts.webui import use_warnings

    made(typed_weight=1.3)
    others = {f"embedding-{number}": SimpleNamespace(filename="none") for number in range(5000)}
    model_hijack.embedding_db.word_embeddings.update(others)
    escaped, escape = [], use_warnings.re.escape
    monkeypatch.setattr(use_warnings.re, "escape", lambda name: escaped.append(name) or escape(name))
    assert len(said("a zebra-two")) == 1 and escaped == ["zebra-two"]


def test_comments_are_left_out_as_forge_and_its_kin_do(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules import scripts

    from embedding_estimate.hosts.webui import comments

    class ScriptComments(scripts.ScriptStripComments):  # Classic's and Neo's
        pass

    monkeypatch.setattr(scripts, "scripts_data", [SimpleNamespace(script_class=ScriptComments)])
    assert comments.left_out("a cat # hi") == "a cat "
    monkeypatch.setattr(scripts, "scripts_data", [])
    assert comments.left_out("a cat # hi") == "a cat # hi"
    forge = ModuleType("modules.processing_scripts.comments")
    forge.strip_comments = lambda text: text.partition("#")[0]
    monkeypatch.setitem(sys.modules, "modules.processing_scripts", ModuleType("modules.processing_scripts"))
    monkeypatch.setitem(sys.modules, "modules.processing_scripts.comments", forge)
    assert comments.left_out("a cat # hi") == "a cat "


@pytest.mark.slow
def test_using_an_embedding_otherwise_than_it_was_made_for_is_said(loaded: Any) -> None:
    loaded.opts.emphasis = "No norm"
    text = "(red:1.5) circle <lora:painting:0.8>"
    job = finished(text=text)
    assert any("emphasis mode No norm" in note for note in job.notes)
    assert any("<lora:painting:0.8>" in note for note in job.notes)

    assert said("a zebra-two <lora:painting:0.8>") == []
    assert said("a zebra-one, a zebra-twofold") == [] == said("a zebra-two <lora:painting:.80>")
    assert said("", "Zebra-Two") == ["zebra-two was made with <lora:painting:0.8>, which the prompt lacks"]
    loaded.opts.CLIP_stop_at_last_layers, loaded.opts.emphasis = 2, "Original"
    assert said("zebra-two <lora:painting:0.8>") == [
        "zebra-two was made for clip skip 1, and it is 2 now, for the emphasis mode No norm, and it is Original now"
    ]


@pytest.mark.slow
def test_a_network_that_the_settings_had_added_and_add_no_more_is_said(loaded: Any) -> None:
    from modules import extra_networks

    from embedding_estimate.hosts.webui import use_warnings

    def said_with_networks(prompt: str = "a zebra-two") -> list[str]:
        image = Processing(prompt)
        extra_networks.activate(image, {})  # as the WebUI does it before a batch
        use_warnings.comment(image)
        return image.said

    loaded.opts.sd_lora = "painting"
    told = finished().saved.estimate.embedding.provenance
    assert told["networks"] == ["<lora:painting:1.0>"]
    assert said_with_networks() == []
    loaded.opts.sd_lora = "None"
    assert said_with_networks() == ["zebra-two was made with <lora:painting:1.0>, which the prompt lacks"]
    assert (
        said_with_networks("a zebra-two <lora:painting:1>") == said_with_networks("a zebra-two <lora:painting>") == []
    )


def test_a_word_without_the_others_that_it_was_made_with_is_said(loaded: Any, made: Callable[..., Path]) -> None:
    words = [
        {"name": f"zebra-{letter}", "tokens": 2, "typed_weight": weight} for letter, weight in (("a", 1.4), ("b", 1.0))
    ]
    for word in words:
        made(word["name"], words=words, typed_weight=word["typed_weight"])
    assert said("a (zebra-a:1.4) zebra-b") == said("(zebra-a:1.4)", "zebra-b") == []
    phrase = "(zebra-a:1.4) zebra-b"
    assert said("zebra-b") == [f"zebra-b was made to be typed as {phrase}, and the prompt lacks zebra-a"]
    assert said("zebra-a, zebra-b") == ["zebra-a was made to be typed as (zebra-a:1.4), and has the weight 1 here"]


def test_a_phrase_makes_the_prompt_and_is_on_each_card(loaded: Any, brief: None) -> None:
    from modules.sd_hijack import model_hijack

    from embedding_estimate.hosts.webui.host import WebuiHost

    job = finished(name="zebra", words="One per weight", tokens=0)
    assert job.state == "done" and job.saved.estimate.stopped == "exact"
    assert sorted(model_hijack.embedding_db.word_embeddings) == ["zebra-a", "zebra-b"]
    with WebuiHost().borrow() as model:
        size = {"evaluations": 4, "width": 64, "height": 64}
        [mine], [theirs] = (model.encode(prompt, **size) for prompt in (job.saved.estimate.phrase, "(red:1.5) circle"))
        torch.testing.assert_close(mine.parts[0][0].context, theirs.parts[0][0].context)
    for path in job.saved.paths:
        card = json.loads(path.with_suffix(".json").read_text("utf-8"))
        assert "To be typed as (zebra-a:1.5) zebra-b\n" in card["description"]
