"""`estimate` from Python, on pipelines in memory and on paths."""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
)
from hosts.contract import fingerprint, random_states
from suites import quick_first

from embedding_estimate import Embedding, Progress, Result, Settings, StopToken, estimate, load
from embedding_estimate.demo.random_models import Family
from embedding_estimate.errors import Interrupted, ModelError, NameTaken, SettingsError
from embedding_estimate.fidelity.previews import Preview
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.model.meter import Passes
from embedding_estimate.python_api.interrupting import stopping_on_interrupt

QUICK: dict[str, Any] = {
    "part": "Transformer",
    "tokens": 2,
    "learning_steps": 2,
    "steps": 2,
    "measure": "Nothing",
    "use": "Alone",
    "progress": False,
}
FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl")
TEXT = "(red:1.5) circle on a square"
Load = Callable[..., Any]


def modules(pipeline: Any) -> list[torch.nn.Module]:
    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def state(pipeline: Any) -> list[Any]:
    """All that an estimate could leave behind in a pipeline."""
    others = {name: part for name, part in pipeline.components.items() if not isinstance(part, torch.nn.Module)}
    configs = [json.dumps(dict(part.config), default=str) for part in (pipeline, pipeline.scheduler, pipeline.unet)]
    tokenizers = [part.get_vocab() for name, part in others.items() if name.startswith("tokenizer")]
    scheduler = {
        key: value.tolist() if isinstance(value, torch.Tensor) else str(value)
        for key, value in vars(pipeline.scheduler).items()
    }
    held = {name: id(part) for name, part in vars(pipeline).items()}
    return [fingerprint(modules(pipeline)), held, configs, tokenizers, scheduler, random_states()]


def unlike_new(pipeline: Any) -> Any:
    """Modes, gradients and hooks that a careless borrower would lose."""
    pipeline.unet.train()
    pipeline.vae.requires_grad_(False)
    pipeline.text_encoder.register_forward_hook(lambda _module, _arguments, _output: None)
    parameter = next(pipeline.unet.parameters())
    parameter.grad = torch.ones_like(parameter)
    pipeline.scheduler.set_timesteps(3)
    return pipeline


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pipeline_comes_back_as_it_was(copy_pipeline: Load, family: Family, dtype: torch.dtype) -> None:
    pipeline = unlike_new(copy_pipeline(family, dtype))
    before = state(pipeline)
    result = estimate(TEXT, pipeline, **{**QUICK, "part": "Attention + U-Net"})
    assert result.embedding.tokens == 2
    assert state(pipeline) == before


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pipeline_gives_the_vectors_that_its_folder_gives(
    copy_pipeline: Load, random_folder: Callable[[Family], Path], family: Family
) -> None:
    options = {**QUICK, "part": "U-Net"}
    ours = estimate(TEXT, copy_pipeline(family), **options)
    theirs = estimate(TEXT, random_folder(family), **options)
    assert ours.vectors.keys() == theirs.vectors.keys()
    for key, vectors in theirs.vectors.items():
        torch.testing.assert_close(ours.vectors[key], vectors, rtol=1e-4, atol=1e-5)
    assert ours.embedding.provenance["model"] == {**theirs.embedding.provenance["model"], "hash": ""}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # diffusers' own, of Euler's levels
@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler])
def test_the_scheduler_of_a_pipeline_changes_nothing(copy_pipeline: Load, kind: Any) -> None:
    pipeline = copy_pipeline("sd2")  # which predicts v: only the scheduler says so
    options = {**QUICK, "part": "U-Net"}
    expected = estimate(TEXT, pipeline, **options).vectors["clip_h"]
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    assert torch.equal(estimate(TEXT, pipeline, **options).vectors["clip_h"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["prepare", "train", "measure"])
def test_an_error_of_a_callback_is_raised_and_the_pipeline_comes_back(
    copy_pipeline: Load, brief: None, phase: str
) -> None:
    pipeline = unlike_new(copy_pipeline("sd1"))
    before = state(pipeline)
    raised: list[Exception] = []

    def fail(progress: Progress) -> None:
        if progress.phase == phase:
            raised.append(ZeroDivisionError(phase))
            raise raised[-1]

    with pytest.raises(ZeroDivisionError) as error:
        estimate(TEXT, pipeline, on_progress=fail, **{**QUICK, "part": "U-Net", "measure": "Full"})
    assert error.value is raised[0]
    assert state(pipeline) == before


@pytest.mark.slow
def test_an_error_with_a_snapshot_is_raised_as_well(copy_pipeline: Load) -> None:
    def fail(embedding: Embedding, step: int) -> None:
        raise ZeroDivisionError(f"{embedding.name} at {step}")

    with pytest.raises(ZeroDivisionError, match="red-circle-on at 1"):
        estimate(TEXT, copy_pipeline("sd1"), on_snapshot=fail, **{**QUICK, "save_every": 1})


def test_a_pipeline_comes_back_as_it_was_after_an_error_of_its_own(copy_pipeline: Load) -> None:
    pipeline = copy_pipeline("sd1")

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise ZeroDivisionError("in the text encoder")

    pipeline.text_encoder.register_forward_pre_hook(fail)
    before = state(pipeline)
    with pytest.raises(ZeroDivisionError, match="in the text encoder"):
        estimate(TEXT, pipeline, **QUICK)
    assert state(pipeline) == before


def press(phase: str, times: int = 1) -> Callable[[Progress], None]:
    """Presses Ctrl+C once a phase has begun."""
    left = times

    def listen(progress: Progress) -> None:
        nonlocal left
        if progress.phase == phase and progress.done >= 1:
            while left:
                left -= 1
                os.kill(os.getpid(), signal.SIGINT)

    return listen


LONG: dict[str, Any] = {**QUICK, "part": "U-Net", "learning_steps": 1000}


@pytest.mark.usefixtures("signals")
def test_ctrl_c_returns_what_was_reached(copy_pipeline: Load, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline = unlike_new(copy_pipeline("sd1"))
    before = state(pipeline)
    result = estimate(TEXT, pipeline, on_progress=press("train"), **LONG)
    assert result.stopped == "interrupted"
    assert 1 <= result.estimate.steps < 1000
    assert capfd.readouterr().err == "\nstopping; the best so far is returned. Ctrl+C again drops it\n"
    assert state(pipeline) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(("phase", "times"), [("prepare", 1), ("train", 2)])
def test_ctrl_c_raises_where_nothing_is_kept(copy_pipeline: Load, phase: str, times: int) -> None:
    pipeline = unlike_new(copy_pipeline("sd1"))
    before = state(pipeline)
    with pytest.raises(KeyboardInterrupt):
        estimate(TEXT, pipeline, on_progress=press(phase, times), **LONG)
    assert state(pipeline) == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("signals")
def test_a_third_ctrl_c_raises_at_once() -> None:
    stop = StopToken()
    with pytest.raises(KeyboardInterrupt), stopping_on_interrupt(stop):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        assert stop.dropped
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it did not raise")


def test_a_handler_of_the_programs_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        stop = StopToken()
        with stopping_on_interrupt(stop):
            signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT] and not stop.stopped
    finally:
        signal.signal(signal.SIGINT, before)


def test_seconds_choose_the_effort(copy_pipeline: Load) -> None:
    result = estimate(TEXT, copy_pipeline("sd1"), **QUICK, seconds=1e-6)
    assert (result.settings.effort, result.settings.seconds) == ("Quick", 0)
    (note,) = (line for line in result.notes if line.startswith("seconds="))
    assert note.startswith("seconds=1e-06: even effort Quick is expected to take about ")


def test_a_stop_before_the_work_is_an_interruption(copy_pipeline: Load) -> None:
    stop = StopToken()
    stop.stop(save=True)
    with pytest.raises(Interrupted, match="before there was anything to save"):
        estimate(TEXT, copy_pipeline("sd1"), stop=stop, **QUICK)


@pytest.mark.slow
def test_it_works_where_gradients_are_off(copy_pipeline: Load) -> None:
    pipeline = copy_pipeline("sd1")
    expected = estimate(TEXT, pipeline, **QUICK).vectors["clip_l"]
    with torch.no_grad():
        assert torch.equal(estimate(TEXT, pipeline, **QUICK).vectors["clip_l"], expected)
    with torch.inference_mode():
        assert torch.equal(estimate(TEXT, pipeline, **QUICK).vectors["clip_l"], expected)


def test_settings_are_taken_whole_and_by_name(copy_pipeline: Load) -> None:
    options = {key: value for key, value in QUICK.items() if key != "progress"}
    whole = Settings(text=TEXT, name="red-disc", **options)
    result = estimate(whole, copy_pipeline("sd1"), progress=False, tokens=3, prompt_type="negative prompt")
    assert result.settings == Settings(**{**whole.to_dict(), "tokens": 3, "prompt_type": "Negative Prompt"})
    assert (result.embedding.name, result.phrase, result.embedding.tokens) == ("red-disc", "red-disc", 3)


def test_a_name_is_made_of_the_words(copy_pipeline: Load) -> None:
    result = estimate(TEXT, copy_pipeline("sd1"), **QUICK)
    assert result.phrase == result.settings.name == "red-circle-on"
    private = estimate(TEXT, copy_pipeline("sd1"), private=True, **QUICK)
    assert private.phrase == "an-embedding"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"token": 4}, "'token' is not a setting: did you mean tokens"),
        ({"tokens": 99}, "tokens=99"),
        ({"save_every": 1}, "save_every=1: nothing takes what it makes; give on_snapshot, or leave it out"),
        ({"preview_every": 1}, "preview_every=1: nothing takes what it makes; give on_preview, or leave it out"),
    ],
)
def test_wrong_settings_are_told_before_the_model_is_loaded(options: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as told:
        estimate(TEXT, "no/such/model/here", **{**QUICK, **options})
    assert line in str(told.value) and "\n" not in str(told.value)


@pytest.mark.slow
def test_callbacks_get_snapshots_and_previews(copy_pipeline: Load) -> None:
    snapshots: list[tuple[str, int]] = []
    previews: list[Preview] = []
    estimate(
        TEXT,
        copy_pipeline("sd1"),
        on_snapshot=lambda embedding, step: snapshots.append((embedding.name, step)),
        on_preview=previews.append,
        **{**QUICK, "save_every": 1, "preview_every": 2},
    )
    assert snapshots == [("red-circle-on", 1), ("red-circle-on", 2)]
    assert [preview.step for preview in previews] == [2]
    assert previews[0].pictures["embedding"].size == (64, 64)


@pytest.fixture
def measured(random_folder: Callable[[Family], Path], brief: None) -> Result:
    return estimate(TEXT, random_folder("sdxl"), **{**QUICK, "measure": "Quick with images"})


@pytest.mark.slow
def test_a_result_has_all_that_is_known(measured: Result) -> None:
    figures = measured.figures
    assert figures is not None
    shapes = {key: tuple(vectors.shape) for key, vectors in measured.vectors.items()}
    assert shapes == {"clip_l": (2, 32), "clip_g": (2, 48)}
    assert measured.embedding.provenance["fidelity"]["explained"] == figures.explained
    assert len(measured.losses) == measured.estimate.steps == 2
    assert [step for step, _ in measured.checks][-1] == 2
    assert measured.passes.total == measured.passes.measure != Passes()  # the part does without the U-Net
    assert "embedding" in measured.pictures and measured.pictures["embedding"][0].size == (64, 64)
    assert measured.report().size[0] > measured.report().size[1] / 4
    assert repr(measured) == f"<Result red-circle-on: 2 vectors, done, explained {figures.explained:.3f}>"
    error = figures.standard_errors["explained"]
    assert f"\n  explained            {figures.explained:.3f} ± {error:.3f}   share of" in str(measured)
    assert all(f"note: {line}" in str(measured) for line in measured.notes)


@pytest.mark.slow
def test_it_saves_under_the_name_that_is_given(measured: Result, tmp_path: Path) -> None:
    (path,) = measured.save("red-disc", tmp_path / "new")
    assert path == tmp_path / "new" / "red-disc.safetensors"
    read = load(path)
    assert read.name == read.provenance["settings"]["name"] == "red-disc"
    for key, vectors in measured.vectors.items():
        assert torch.equal(read.vectors[key], vectors)
    with pytest.raises(NameTaken, match="red-disc"):
        measured.save("red-disc", tmp_path / "new")
    assert measured.save("red-disc", tmp_path / "new", overwrite=True) == [path]
    with pytest.raises(SettingsError, match="stands for folders"):
        measured.save("new/red-disc", tmp_path)
    with pytest.raises(SettingsError, match="format='ckpt'"):
        measured.save("red-disc", tmp_path, format="ckpt")


def test_the_default_folder_is_that_of_the_command_line(
    copy_pipeline: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = estimate(TEXT, copy_pipeline("sd1"), format="pt", **QUICK)
    assert result.save() == [Path("embeddings/red-circle-on.pt")]
    assert torch.equal(load("embeddings/red-circle-on.pt").vectors["emb_params"], result.vectors["clip_l"])


def test_words_are_saved_each_under_its_name(copy_pipeline: Load, tmp_path: Path) -> None:
    result = estimate("(red:1.5) circle", copy_pipeline("sd1"), **{**QUICK, "tokens": 0, "words": "One per weight"})
    assert result.phrase == "(red-circle-a:1.5) red-circle-b"
    paths = result.save("disc", tmp_path)
    assert [path.name for path in paths] == ["disc-a.safetensors", "disc-b.safetensors"]
    provenance = load(paths[1]).provenance
    assert provenance["phrase"] == "(disc-a:1.5) disc-b"
    assert [word["name"] for word in provenance["words"]] == ["disc-a", "disc-b"]


def test_bars_show_the_phases_and_can_be_off(copy_pipeline: Load, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline = copy_pipeline("sd1")
    phases: list[str] = []
    estimate(TEXT, pipeline, on_progress=lambda progress: phases.append(progress.phase), **QUICK)
    assert capfd.readouterr() == ("", "")
    assert list(dict.fromkeys(phases)) == ["train"]
    estimate(TEXT, pipeline, **{**QUICK, "progress": True})
    err = capfd.readouterr().err
    assert "training" in err and "2/2" in err and "explained" in err


def test_a_prompt_may_name_what_the_pipeline_has_loaded(load_pipeline: Load) -> None:
    pipeline = load_pipeline("sdxl")
    vectors = {"clip_l": torch.randn(2, 32), "clip_g": torch.randn(2, 48)}
    pipeline.load_textual_inversion(vectors["clip_l"], token="red-disc")
    parts = {"tokenizer": pipeline.tokenizer_2, "text_encoder": pipeline.text_encoder_2}
    pipeline.load_textual_inversion(vectors["clip_g"], token="red-disc", **parts)
    host = StandaloneHost.of_pipeline(pipeline)
    with host.borrow() as model:
        assert model.embedding_names() == ["red-disc"]
        size = {"width": 64, "height": 64}
        ours = model.encode("a red-disc, blue", evaluations=1, **size)[0].parts[0][0]
        expected = model.encode_vectors(vectors, ["a {}, blue"], **size)[0]
        torch.testing.assert_close(ours.context, expected.context)
        torch.testing.assert_close(ours.vector, expected.vector)


def without(name: str) -> Callable[[Any], Any]:
    def change(pipeline: Any) -> Any:
        setattr(pipeline, name, None)
        return pipeline

    return change


def flow(pipeline: Any) -> Any:
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    return pipeline


def offloaded(pipeline: Any) -> Any:
    pipeline.unet.conv_in._hf_hook = SimpleNamespace()
    return pipeline


def hooked(pipeline: Any) -> Any:
    pipeline.unet._diffusers_hook = SimpleNamespace(hooks={"group_offloading": object()})
    return pipeline


def elsewhere(pipeline: Any) -> Any:
    pipeline.vae.to("meta")
    return pipeline


def wide(pipeline: Any) -> Any:
    pipeline.unet.to(torch.float64)
    return pipeline


def adapted(pipeline: Any) -> Any:
    pipeline.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    return pipeline


def sampling_images(pipeline: Any) -> Any:
    return StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)


@pytest.mark.parametrize(
    ("change", "line"),
    quick_first(
        3,
        [
            (lambda pipeline: object(), "object: only text-to-image pipelines of Stable Diffusion 1, 2 and XL"),
            (sampling_images, "StableDiffusionImg2ImgPipeline: only text-to-image pipelines"),
            (without("text_encoder"), "StableDiffusionPipeline: has no text_encoder; load the pipeline with all"),
            (without("scheduler"), "StableDiffusionPipeline: has no scheduler"),
            (flow, "its scheduler FlowMatchEulerDiscreteScheduler does not have the noise levels"),
            (offloaded, "its unet moves between devices (CPU offload or device_map); call remove_all_hooks()"),
            (hooked, "its unet has hooks of diffusers"),
            (elsewhere, "its parts are on cpu, meta; put all of them on one device"),
            (wide, "its unet holds torch.float64; load it in float32, float16 or bfloat16"),
            (adapted, "its U-Net also reads images (IP-Adapter); call unload_ip_adapter() first"),
        ],
    ),
)
def test_a_pipeline_that_cannot_be_used_is_refused_in_one_line(copy_pipeline: Load, change: Any, line: str) -> None:
    with pytest.raises(ModelError) as told:
        estimate(TEXT, change(copy_pipeline("sd1")), **QUICK)
    assert line in str(told.value) and "\n" not in str(told.value)


def test_the_second_encoder_of_sdxl_is_needed(copy_pipeline: Load) -> None:
    with pytest.raises(ModelError, match="StableDiffusionXLPipeline: has no text_encoder_2"):
        estimate(TEXT, without("text_encoder_2")(copy_pipeline("sdxl")), **QUICK)


def test_a_size_of_two_sides_is_read_and_left(copy_pipeline: Load) -> None:
    pipeline = copy_pipeline("sd1")
    pipeline.unet.register_to_config(sample_size=[16, 8])
    before = copy.deepcopy(dict(pipeline.unet.config))
    assert StandaloneHost.of_pipeline(pipeline).info.default_size == 64
    assert dict(pipeline.unet.config) == before


@pytest.mark.parametrize(
    ("contexts", "line"),
    [
        ("a {} star", "contexts='a {} star' is one text: give a list of prompts"),
        (["a star"], "context 'a star' has no {}: write {} where the embedding stands"),
    ],
)
def test_contexts_that_an_embedding_cannot_be_measured_in_are_refused(
    load_pipeline: Load, contexts: Any, line: str
) -> None:
    with pytest.raises(SettingsError) as told:
        estimate(TEXT, load_pipeline("sd1"), contexts=contexts, **QUICK)
    assert str(told.value) == line
