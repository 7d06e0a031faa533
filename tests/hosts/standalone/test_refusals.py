from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the standalone host needs the package's 'app' extra")

from diffusers import DiffusionPipeline, UNet2DConditionModel
from hosts.standalone.ldm_models import make
from safetensors.torch import load as parse
from safetensors.torch import load_file, save_file
from suites import quick_first
from torch import Tensor

from embedding_estimate.demo.random_models import Family
from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.standalone.checkpoint import recognise
from embedding_estimate.hosts.standalone.loading import load

Copied = Callable[[Family], Path]


@pytest.fixture
def copied(random_folder: Callable[[Family], Path], tmp_path: Path) -> Copied:
    """(family) -> the folder of a model that a test may change."""
    return lambda family: Path(shutil.copytree(random_folder(family), tmp_path / "model"))


@pytest.fixture(scope="module")
def sd1_tensors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return load_file(make("sd1", tmp_path_factory.mktemp("ldm") / "model.safetensors").path)


def one_line(model: str | Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(model, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    assert "no such file or folder" in one_line(tmp_path / "nowhere" / "model.safetensors")
    assert "no such file or folder" in one_line("model.safetensors")
    assert one_line("").startswith("'': no such file or folder")
    assert "no such file or folder" in one_line("models/typo.safetensors")  # which is no hub name either


def test_a_hub_name_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(**_: Any) -> None:
        raise OSError("We couldn't connect to the hub\nand more of that")

    monkeypatch.setattr(DiffusionPipeline, "load_config", unreachable)
    assert "couldn't connect to the hub and more" in one_line("someone/some-model")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    assert "model_index.json" in one_line(tmp_path)


def test_truncated_files(sd1_tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(sd1_tensors, path)
    content = path.read_bytes()
    for size in (0, 5, 1000, len(content) - 1):
        path.write_bytes(content[:size])
        assert "truncated" in one_line(path)
    path.write_bytes(b"nonsense" * 1000)
    assert "truncated" in one_line(path)


def test_a_truncated_folder(copied: Copied) -> None:
    folder = copied("sd1")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    assert "cannot be loaded" in one_line(folder)
    tensors = {key: value for key, value in parse(content).items() if key != "conv_in.bias"}
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "conv_in.bias" in one_line(folder)
    weights.unlink()
    assert "cannot be loaded" in one_line(folder)


def test_a_folder_without_its_vocabulary(copied: Copied) -> None:
    folder = copied("sdxl")
    for path in (folder / "tokenizer_2").iterdir():
        path.unlink()
    assert "tokenizer_2 has" in one_line(folder)


def test_a_checkpoint_that_lacks_tensors(sd1_tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({key: value for key, value in sd1_tensors.items() if "time_embed.2" not in key}, path)
    assert "2 tensors are missing, the first is time_embedding.linear_2" in one_line(path)


UNET, VAE = "model.diffusion_model.", "first_stage_model."
PLAIN = {f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3), f"{VAE}decoder.conv_in.weight": (512, 4, 3, 3)}


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        (PLAIN | {f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}, "inpainting"),
        (PLAIN | {f"{UNET}input_blocks.0.0.weight": (320, 8, 3, 3)}, "instruct-pix2pix"),
        (PLAIN | {"conditioner.embedders.0.model.ln_final.weight": (1280,)}, "refiner"),
        (PLAIN | {f"{UNET}label_emb.0.0.weight": (1280, 2048), "cond_stage_model.model.x": ()}, "unCLIP"),
        ({f"{UNET}double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, "Flux"),
        ({"double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, "Flux"),
        ({f"{UNET}joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,)}, "Stable Diffusion 3"),
        ({"lora_unet_down_blocks_0.lora_down.weight": (4, 320)}, "LoRA"),
        ({"emb_params": (4, 768)}, "embedding"),
        ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "ControlNet"),
        ({"decoder.conv_in.weight": (512, 4, 3, 3)}, "VAE"),
        ({"something": (1,)}, "not a Stable Diffusion checkpoint, because it holds no U-Net; choose another file"),
        (PLAIN, "an incomplete checkpoint without a text encoder; get a complete one"),
    ],
)
def test_other_models_are_refused_by_name(shapes: dict[str, tuple[int, ...]], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        recognise("model.safetensors", shapes)


@pytest.mark.parametrize(
    ("changes", "named"),
    quick_first(
        2,
        [
            ({"_class_name": "FluxPipeline", "unet": [None, None]}, "FluxPipeline"),
            ({"requires_aesthetics_score": True}, "refiner"),
            ({"text_encoder": [None, None], "text_encoder_2": ["transformers", "CLIPTextModel"]}, "refiner"),
            ({"_class_name": "DDPMPipeline", "text_encoder": [None, None]}, "DDPMPipeline"),
        ],
    ),
)
def test_other_pipelines_are_refused_by_name(changes: dict[str, Any], named: str, copied: Copied) -> None:
    folder = copied("sd1")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    (folder / "model_index.json").write_text(json.dumps(index | changes), encoding="utf-8")
    assert named in one_line(folder)


def test_folders_with_an_inpainting_unet_are_refused(copied: Copied) -> None:
    folder = copied("sd1")
    config = UNet2DConditionModel.load_config(folder / "unet")
    UNet2DConditionModel.from_config(config, in_channels=9).save_pretrained(folder / "unet")
    assert "inpainting" in one_line(folder)
