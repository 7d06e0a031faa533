"""Tests in a real WebUI: `python -m pytest -W ignore tests/webui` with its own Python, and WEBUI_DIR=its folder, a
small checkpoint in it.

The WebUI is started in this process, on the CPU and without its page. Arguments of its own, such as
--ckpt and --medvram, go into WEBUI_ARGS.

And tests against a stand-in of its modules: `shared` and `loaded` are for these.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from webui_arguments import arguments

from embedding_estimate.model.host import Family

STAND_IN = Path(__file__).with_name("stand_in")
STAND_IN_FORGE = Path(__file__).with_name("stand_in_forge")
THEIRS = (
    *("modules", "k_diffusion", "networks", "lora"),
    *("backend", "modules_forge", "huggingface_guess", "ldm_patched"),
    *("model", "forge_model", "embedding_files", "engine_parts", "image_jobs"),  # the stand-ins' own
)


@pytest.fixture(scope="session")
def webui() -> Any:
    """Its `shared` module, with the checkpoint loaded."""
    folder = Path(os.environ.get("WEBUI_DIR", ""))
    if not folder.name:
        pytest.skip("WEBUI_DIR names no WebUI to test in")
    if not (folder / "modules").is_dir():
        pytest.fail(f"WEBUI_DIR={folder}: is no WebUI")
    if importlib.util.find_spec("omegaconf") is None:  # as where only the browser's tests are meant
        pytest.skip(f"{folder}: does not run with this Python")
    before, place = sys.argv, Path.cwd()
    newer, forge = (folder / "modules/initialize.py").exists(), (folder / "modules_forge").exists()
    sys.argv = ["launch.py", *arguments(folder), *os.environ.get("WEBUI_ARGS", "").split()]
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        return _started(newer, forge)
    finally:
        sys.argv = before
        os.chdir(place)


def _started(newer: bool, forge: bool) -> Any:
    importlib.import_module("launch")  # reads the arguments
    import webui

    if forge:  # has initialised itself by now
        _loaded_by_forge()
    elif newer:
        from modules import initialize

        initialize.initialize()
    else:
        webui.initialize()
    from modules import script_callbacks, shared

    script_callbacks.before_ui_callback()  # the page's first step, by which LoRA becomes known
    for thread in threading.enumerate():  # one of them loads the checkpoint
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(300)
    assert shared.sd_model is not None
    return shared


def _loaded_by_forge() -> None:
    """reForge leaves the checkpoint to its main thread, Forge and Neo to the first image."""
    from modules import sd_models

    if hasattr(sd_models, "forge_model_reload"):
        from modules_forge import main_entry

        main_entry.refresh_model_loading_parameters()
        sd_models.forge_model_reload()
        return
    from modules_forge import main_thread

    while main_thread.waiting_list:
        main_thread.waiting_list.pop(0).work()


@pytest.fixture
def generated(webui: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """(prompt, sampler, more) -> picture (3, H, W) in [0, 255] by the WebUI's own processing, without guidance."""
    from modules import processing, scripts

    monkeypatch.setitem(webui.opts.data, "persistent_cond_cache", False)  # it would not notice other settings
    monkeypatch.setitem(webui.opts.data, "live_previews_enable", False)  # some would be downloaded for

    def generate(prompt: str, sampler: str = "Euler", **more: Any) -> Tensor:
        if hasattr(processing.StableDiffusionProcessingTxt2Img, "hr_additional_modules"):  # Forge's
            more.setdefault("hr_additional_modules", ["Use same choices"])
        job = processing.StableDiffusionProcessingTxt2Img(
            sd_model=webui.sd_model,
            prompt=prompt,
            seed=1,
            sampler_name=sampler,
            steps=4,
            cfg_scale=1.0,
            width=64,
            height=64,
            do_not_save_samples=True,
            do_not_save_grid=True,
            **more,
        )
        job.scripts, job.script_args = scripts.ScriptRunner(), ()  # reForge wants one, if an empty one
        try:
            picture = processing.process_images(job).images[0]
        finally:
            job.close()
        return torch.from_numpy(np.array(picture)).movedim(-1, 0)

    return generate


@pytest.fixture(scope="session")
def models(request: pytest.FixtureRequest) -> dict[Family, Any]:
    """A tiny random model of each family, for the stand-in; it is loaded when it is first asked for."""
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e '.[test]'")
    from embedding_estimate.hosts.standalone.loading import load

    random_folder = request.getfixturevalue("random_folder")

    class Models(dict[Family, Any]):
        def __missing__(self, family: Family) -> Any:
            self[family] = load(random_folder(family), device="cpu")
            return self[family]

    return Models()


@pytest.fixture(params=["AUTOMATIC1111"])
def webui_kind(request: pytest.FixtureRequest) -> str:
    """Whose face the stand-in has: AUTOMATIC1111, Forge or Neo."""
    return str(request.param)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, webui_kind: str) -> Iterator[Any]:
    """The stand-in's `modules.shared`, new for each test."""
    monkeypatch.syspath_prepend(STAND_IN)
    if webui_kind != "AUTOMATIC1111":
        monkeypatch.syspath_prepend(STAND_IN_FORGE)
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in THEIRS}
    sys.modules["ldm_patched"] = None  # by which a reForge would be known, if one is tested in this process
    from modules import shared

    if webui_kind == "Neo":
        _become_neo()
    yield shared
    for name in list(sys.modules):
        if name.partition(".")[0] in THEIRS:
            del sys.modules[name]
    sys.modules.update(before)


def _become_neo() -> None:
    """What Neo has otherwise."""
    from backend import args, attention
    from backend.nn import unet
    from huggingface_guess import model_list
    from modules import sd_models

    sd_models.unload_model_weights = sd_models.unload_and_forget
    sys.modules["modules.sd_hijack"] = None
    args.dynamic_args = SimpleNamespace(last_extra_generation_params={})
    unet.attention_function = attention.attention_sage
    del model_list.SD20


@pytest.fixture
def loaded(shared: Any, models: dict[Family, Any], tmp_path: Path) -> Any:
    """The stand-in with SD1 loaded, folders of its own, and nothing left over in the extension."""
    from model import put_in

    from embedding_estimate.hosts.webui import extension

    shared.cmd_opts.embeddings_dir = str(tmp_path / "embeddings")
    put_in(models["sd1"])
    extension.place.cache_clear()
    return shared


@pytest.fixture
def press(shared: Any) -> Callable[[Callable[[], Any]], threading.Thread]:
    """Has a function called by a thread of its own, as a button does; returns once that waits in the queue."""
    from modules.call_queue import queue_lock

    def press(function: Callable[[], Any]) -> threading.Thread:
        thread, before = threading.Thread(target=function), len(queue_lock._pending_threads)
        thread.start()
        while thread.is_alive() and len(queue_lock._pending_threads) == before:
            thread.join(0.01)
        return thread

    return press


@pytest.fixture
def failing_parser(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As AUTOMATIC1111's of 1.2 fails at an empty alternative."""
    from modules import prompt_parser

    error = type("VisitError", (Exception,), {"__module__": "lark.exceptions"})
    schedules = prompt_parser.get_learned_conditioning_prompt_schedules

    def parsed(prompts: list[str], steps: int) -> Any:
        if any("|]" in prompt for prompt in prompts):
            raise error('Error trying to process rule "start":\n\ngenerator raised StopIteration')
        return schedules(prompts, steps)

    monkeypatch.setattr(prompt_parser, "get_learned_conditioning_prompt_schedules", parsed)
