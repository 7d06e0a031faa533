"""In a real WebUI: what a job has left is what its next image is made with, and what is said beside that."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs.test_jobs import ended
from torch import Tensor

from embedding_estimate.files.embedding import Embedding, write
from embedding_estimate.hosts.webui import use_warnings
from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.hosts.webui.kind import kind
from embedding_estimate.settings import Settings

PROMPT = "zebra-two in rain"
TWICE = {"enable_hr": True, "hr_scale": 2.0, "hr_upscaler": "Latent", "denoising_strength": 0.7}
Generate = Callable[..., Tensor]


@pytest.fixture
def folder(webui: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An embeddings folder of the test's own."""
    from embedding_estimate.hosts.webui import extension

    folder = tmp_path / "embeddings"
    folder.mkdir()
    extension.place.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(webui.cmd_opts, "embeddings_dir", str(folder))
        for database in databases(webui):
            patch.setattr(database, "embedding_dirs", {})
            database.add_embedding_dir(str(folder))
        yield folder
    extension.place.cache_clear()
    kind().read_embeddings_anew(None)


def databases(webui: Any) -> list[Any]:
    """All that know embeddings by name."""
    if not hasattr(webui.sd_model, "forge_objects_original") or hasattr(webui.sd_model, "model"):
        return [kind().embeddings(webui.sd_model)]
    from modules import ui_extra_networks_textual_inversion

    of_engines = [engine.names for engine in kind().engines(webui.sd_model, nullcontext)]
    return [*of_engines, ui_extra_networks_textual_inversion.embedding_db]


def warnings(webui: Any, *prompts: str) -> list[str]:
    """What is said beside an image of these prompts, with what is in the folder now."""
    kind().read_embeddings_anew(None)
    return use_warnings.warnings(prompts, kind().embeddings(webui.sd_model), 20)


def started(**settings: Any) -> Any:
    from embedding_estimate.hosts.webui import extension

    small = {"part": "Transformer", "tokens": 2, "learning_steps": 3, "steps": 3, "width": 64, "height": 64}
    given = {"text": "red circle", "name": "zebra-two", "measure": "Nothing"}
    return extension.place().jobs.start(Settings(**small | given | settings))


def finished(**settings: Any) -> Any:
    job = started(**settings)
    ended(job)
    assert (job.state, job.problems) == ("done", [])
    return job


@pytest.mark.parametrize("more", [{}, TWICE], ids=["once", "hires"])
def test_the_next_picture_is_made_with_what_is_in_the_file(
    webui: Any, folder: Path, generated: Generate, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setitem(webui.opts.data, "persistent_cond_cache", True)
    words = generated(PROMPT, **more)
    finished()
    new = generated(PROMPT, **more)
    finished(text="blue square", overwrite=True)
    other = generated(PROMPT, **more)
    assert not torch.equal(words, new) and not torch.equal(new, other)

    monkeypatch.setitem(webui.opts.data, "persistent_cond_cache", False)
    generated("another prompt", **more)  # after which nothing is kept
    assert torch.equal(generated(PROMPT, **more), other)


def test_the_page_shows_the_new_card_when_it_is_loaded(webui: Any, folder: Path) -> None:
    gr = pytest.importorskip("gradio")
    from modules import ui_extra_networks

    if "interface" not in inspect.signature(ui_extra_networks.create_ui).parameters:
        pytest.skip("an early WebUI draws its cards when they are opened")
    ui_extra_networks.initialize()
    ui_extra_networks.register_default_pages()
    with gr.Blocks() as page, gr.Tabs():
        ui = ui_extra_networks.create_ui(page, [], "txt2img")
    functions = page.fns.values() if isinstance(page.fns, dict) else page.fns
    (loaded,) = (block.fn for block in functions if getattr(block.fn, "__name__", "") == "pages_html")
    assert ui.stored_extra_pages and "zebra-two" not in "".join(loaded())
    finished()
    assert "zebra-two" in "".join(loaded())


def test_a_job_that_waits_in_the_queue_ends_when_it_is_stopped(webui: Any, folder: Path) -> None:
    from modules.call_queue import queue_lock

    with queue_lock:
        job = started()
        job.stop.stop(save=True)
        ended(job)
        assert (job.state, job.problems) == ("dropped", ["interrupted before there was anything to save"])
    with WebuiHost().borrow() as model:  # the queue goes on
        assert model.token_ids("a")


@pytest.fixture
def width(webui: Any) -> int:
    with WebuiHost().borrow() as model:
        if set(model.info.widths) == {"clip_l", "clip_g"}:
            pytest.skip("SDXL's files are another test's")
        return next(iter(model.info.widths.values()))


@pytest.mark.parametrize(
    ("prompt", "here"),
    [
        ("a (zebra-two:1.3)", None),
        ("a (zebra-two, blue:1.3) <lora:zebra-two:1>", None),
        ("a [(zebra-two:1.3):blue:0.5] BREAK (blue:1.2)", None),
        ("a zebra-two", "1"),
        ("a blue AND (zebra-two:1.2) :0.5", "1.2"),
        ("a [blue:zebra-two:5]", "1"),
        ("a [blue:(zebra-two:1.3):0.5], [zebra-two]", "0.909091"),
    ],
)
def test_another_weight_is_said_as_the_webui_reads_it(
    webui: Any, folder: Path, width: int, prompt: str, here: str | None
) -> None:
    path = folder / "zebra-two.safetensors"
    write(Embedding("zebra-two", {"clip_l": torch.zeros(2, width)}, {"typed_weight": 1.3}), path)
    line = f"zebra-two was made to be typed as (zebra-two:1.3), and has the weight {here} here"
    assert warnings(webui, prompt) == ([line] if here else [])


def test_another_checkpoint_and_another_family_are_said(webui: Any, folder: Path, width: int) -> None:
    made_for = {"name": "portraits", "hash": "abcdef0123", "family": "sd1"}
    vectors = {"clip_l": torch.zeros(2, width)}
    write(Embedding("zebra-two", vectors, {"model": made_for}), folder / "zebra-two.safetensors")
    wider = {"clip_h": torch.zeros(2, width + 256)}  # SDXL's have two parts, and an early WebUI reads one
    write(Embedding("yak", wider, {"model": {**made_for, "family": "sd2"}}), folder / "yak.safetensors")
    other, unfit = warnings(webui, "a zebra-two", "a yak")
    loaded = webui.sd_model.sd_checkpoint_info
    assert other == (
        "zebra-two was made for the checkpoint portraits [abcdef0123], "
        f"and it is {loaded.name_for_extra} [{loaded.shorthash}] now"
    )
    assert unfit == "yak was made for another family of models, so the WebUI reads the name as plain words"


def test_of_what_a_job_has_made_for_this_checkpoint_nothing_is_said(webui: Any, folder: Path) -> None:
    finished()
    assert warnings(webui, "a zebra-two") == []
