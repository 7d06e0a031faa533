"""What a model's configuration files may say: right values are read, wrong ones are one line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the standalone host needs the package's 'app' extra")

import torch
from hosts.standalone.ldm_models import make
from safetensors.torch import load_file
from suites import quick_first

from embedding_estimate.demo.random_models import Family
from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.standalone import model_config
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.hosts.standalone.loading import load
from embedding_estimate.hosts.standalone.weight_files import loaded_from, short_hash
from embedding_estimate.model.contexts import NEGATIVE_PROMPTS, PROMPTS, Contexts

UNET, VAE, SCHEDULER = "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"
HUGE = 10**400
NO_NUMBERS = [[], {}, "eight", True, float("nan"), float("inf"), -1, HUGE]


@pytest.fixture(scope="module")
def model(random_folder: Callable[[Family], Path]) -> Path:
    return random_folder("sd1")


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """A model that a test may change."""
    return Path(shutil.copytree(model, tmp_path / "model"))


def change(folder: Path, file: str, **values: Any) -> None:
    written = json.loads((folder / file).read_text("utf-8"))
    (folder / file).write_text(json.dumps(written | values), "utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder, device="cpu")
    return str(caught.value)


@pytest.mark.parametrize(
    ("told", "pixels"), quick_first(2, [([16, 8], 64), (None, 512), ([8, 8], 64), (16, 128), (256, 2048)])
)
def test_the_size_that_a_unet_was_trained_at(folder: Path, told: Any, pixels: int) -> None:
    """A cell of a latent is 8 pixels. Of height and width the smaller counts; SD1 was trained at 512 pixels."""
    change(folder, UNET, sample_size=told)
    assert StandaloneHost.of(load(folder, device="cpu")).info.default_size == pixels


@pytest.mark.parametrize(
    ("family", "prediction", "cells"),
    [("sd1", "epsilon", 64), ("sd1", "v", 64), ("sd2", "epsilon", 64), ("sd2", "v", 96), ("sdxl", "epsilon", 128)],
)
def test_a_size_that_is_not_told_is_the_familys(family: Any, prediction: Any, cells: int) -> None:
    assert model_config.sample_size("unet/config.json", None, family, prediction) == cells


@pytest.mark.parametrize("told", [*NO_NUMBERS, 0, 1.5, 257, [8, 8, 8], [8, None], [0, 8]])
def test_a_size_that_is_none(told: Any) -> None:
    with pytest.raises(ModelError, match=r"^model: sample_size=.+: a whole number from 1 to 256 is needed; correct it"):
        model_config.sample_size("model", told, "sd1", "epsilon")


@pytest.mark.parametrize(
    ("key", "told", "rule"),
    [
        *(("num_train_timesteps", told, "a whole number from 2 to 100,000") for told in [*NO_NUMBERS, 0, 1, 100_001]),
        *(("beta_start", told, "a number between 0 and 1") for told in [*NO_NUMBERS, 0, 1, 1.5]),
        *(("beta_end", told, "a number between 0 and 1") for told in [*NO_NUMBERS, 0, 1, 1.5]),
        *(("beta_schedule", told, "scaled_linear") for told in ["scaled-linear", 0, [], True, float("nan")]),
        *(("trained_betas", told, "a list of 2 to 100,000 numbers") for told in [0, "eight", [], [0.1], {}]),
        *(("trained_betas", [0.1, told], "a number between 0 and 1") for told in [*NO_NUMBERS, 0, None]),
        *(("rescale_betas_zero_snr", told, "true or false") for told in ["false", 1, [], float("nan")]),
    ],
)
def test_a_noise_schedule_that_is_none(key: str, told: Any, rule: str) -> None:
    with pytest.raises(ModelError) as caught:
        model_config.alphas_cumprod("model", {key: told})
    message = str(caught.value)
    assert message.startswith(f"model: {key}=") or message.startswith(f"model: {key[:7]}")
    assert rule in message and "\n" not in message and len(message) < 250


def test_a_noise_schedule_by_its_numbers() -> None:
    """alpha_bar is the running product of 1 - beta: 0.9, then 0.9 * 0.8."""
    alphas = model_config.alphas_cumprod("model", {"trained_betas": [0.1, 0.2], "beta_start": None})
    assert alphas.tolist() == pytest.approx([0.9, 0.72])


@pytest.mark.parametrize(
    ("file", "values", "message"),
    quick_first(
        3,
        [
            (UNET, {"sample_size": "eight"}, "sample_size='eight': a whole number from 1 to 256 is needed"),
            (SCHEDULER, {"num_train_timesteps": 0}, "num_train_timesteps=0: a whole number"),
            (SCHEDULER, {"beta_end": float("nan")}, "beta_end=nan: a number between 0 and 1 is needed"),
            (SCHEDULER, {"prediction_type": ["v"]}, "its U-Net predicts ['v']; only epsilon"),
            (VAE, {"scaling_factor": 0}, "scaling_factor=0: a number between 0 and 1000 is needed"),
            (VAE, {"scaling_factor": None}, "scaling_factor=None: a number between 0 and 1000 is needed"),
            (VAE, {"scaling_factor": "x" * 5000}, "a number between 0 and 1000 is needed"),
            ("text_encoder/config.json", {"num_hidden_layers": 0}, "num_hidden_layers=0: a whole number from 1"),
        ],
    ),
)
def test_a_folder_with_a_number_that_is_none(folder: Path, file: str, values: dict[str, Any], message: str) -> None:
    change(folder, file, **values)
    line = refusal(folder)
    assert message in line and line.startswith(str(folder)) and "\n" not in line
    assert "prediction_type" in values or f": {file}: " in line


@pytest.mark.parametrize("told", [*NO_NUMBERS, 0])
def test_a_scale_that_is_none(told: Any) -> None:
    with pytest.raises(
        ModelError, match=r"^model: scaling_factor=.+: a number between 0 and 1000 is needed; correct it"
    ):
        model_config.between("model", "scaling_factor", told, 0, model_config.MOST_SCALE)


@pytest.mark.parametrize(
    ("params", "message"),
    quick_first(
        2,
        [
            ("{linear_start: .nan}", "linear_start=nan: a number between 0 and 1 is needed"),
            ("{linear_end: two}", "linear_end='two': a number between 0 and 1 is needed"),
            ("{scale_factor: 0}", "scale_factor=0: a number between 0 and 1000 is needed"),
            ("{unet_config: {params: {num_heads: 0}}}", "num_heads=0: a whole number from 1 to 32 is needed"),
            ("{unet_config: {params: {num_head_channels: x}}}", "num_head_channels='x': a whole number from 1 to 32"),
            ("[1]", "not the configuration of a Stable Diffusion model; get another copy"),
        ],
    ),
)
def test_a_description_with_a_number_that_is_none(tmp_path: Path, params: str, message: str) -> None:
    path = make("sd1", tmp_path / "model.safetensors").path
    path.with_suffix(".yaml").write_text(f"model: {{params: {params}}}", "utf-8")
    line = refusal(path)
    assert line.startswith("model.yaml: ") and message in line


def pickled(folder: Path) -> list[Path]:
    """Turns the folder's weights into .bin files; where they are, in the order in which they are hashed."""
    files = []
    for part, name in (
        ("text_encoder", "model"),
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
    ):
        path = folder / part / f"{name}.safetensors"
        files.append(path.with_name(f"{'pytorch_' if name == 'model' else ''}{name}.bin"))
        torch.save(load_file(path), files[-1])
        path.unlink()
    return files


def test_weights_in_bin_files_are_hashed_and_the_libraries_say_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    files = pickled(folder)
    loaded = load(folder, device="cpu")
    expected = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:10]
    assert loaded.hash == expected != hashlib.sha256().hexdigest()[:10]
    (folder / "unet" / "diffusion_pytorch_model.bin").unlink()
    assert "cannot be loaded" in refusal(folder)
    assert capfd.readouterr() == ("", "")


def test_only_files_that_are_loaded_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "vae").mkdir()
    wanted = [
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "vae/diffusion_pytorch_model.bin",
    ]
    others = ["unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin", "vae/config.json"]
    for name in [*wanted, *others]:
        (tmp_path / name).write_text(name)
    assert loaded_from(tmp_path) == [tmp_path / name for name in wanted]
    assert short_hash(loaded_from(tmp_path)) == hashlib.sha256("".join(wanted).encode()).hexdigest()[:10]
    assert short_hash([]) == ""


def test_a_model_brings_its_contexts(folder: Path) -> None:
    (folder / "contexts.json").unlink()
    assert load(folder, device="cpu").contexts == {"prompt": PROMPTS, "negative": NEGATIVE_PROMPTS}
    (folder / "contexts.json").write_text(json.dumps({"prompt": LISTS, "negative": LISTS}), "utf-8")
    info = StandaloneHost.of(load(folder, device="cpu")).info
    assert info.contexts == info.negative_contexts == Contexts(("a {}",), ("{} b",), ("c {}",))


LISTS = {"train": ["a {}"], "select": ["{} b"], "report": ["c {}"]}


@pytest.mark.parametrize(
    "told",
    quick_first(
        2,
        [
            {"prompt": LISTS, "negative": LISTS | {"train": ["a"]}},
            [],
            {"prompt": LISTS},
            {"prompt": LISTS, "negative": {"train": ["a {}"], "select": ["{} b"]}},
            {"prompt": LISTS, "negative": LISTS | {"select": []}},
            {"prompt": LISTS, "negative": LISTS | {"report": [3]}},
            {"prompt": LISTS, "negative": LISTS | {"report": 3}},
            {"prompt": LISTS, "negative": LISTS | {"train": "a {}"}},
        ],
    ),
)
def test_wrong_contexts_are_one_line(folder: Path, told: Any) -> None:
    (folder / "contexts.json").write_text(json.dumps(told), "utf-8")
    assert "lists of prompts with {} in each" in refusal(folder)


def test_contexts_that_are_no_json_are_one_line(folder: Path) -> None:
    (folder / "contexts.json").write_text("{", "utf-8")
    assert "lists of prompts with {} in each" in refusal(folder)
