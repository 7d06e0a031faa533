from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from shaking import shaken
from suites import quick_first

pytest.importorskip("diffusers", reason="the standalone host needs the package's 'app' extra")

import torch
from diffusers import UNet2DConditionModel
from hosts.standalone import ldm_layout
from hosts.standalone.ldm_models import FAMILIES, VOCABULARY, Original, make
from safetensors.torch import load_file, save_file
from torch import Tensor

from embedding_estimate.demo.random_models import random_model
from embedding_estimate.hosts.standalone import ldm
from embedding_estimate.hosts.standalone.checkpoint import Checkpoint
from embedding_estimate.hosts.standalone.loading import LoadedModel, load
from embedding_estimate.model.host import Family


@pytest.fixture(scope="module", params=quick_first(1, reversed(FAMILIES)))
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Original:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shaken(0))
        return make(request.param, tmp_path_factory.mktemp("ldm") / f"{request.param}.safetensors")


@pytest.fixture(scope="module")
def sd1_tensors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return load_file(make("sd1", tmp_path_factory.mktemp("ldm") / "model.safetensors").path)


def same(module: Any, other: Any) -> None:
    ours, theirs = module.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=0)


@torch.no_grad()
def test_a_single_file_gives_back_the_modules_it_was_written_from(original: Original) -> None:
    loaded = load(original.path, device="cpu", prediction="epsilon")
    family = original.path.stem
    assert (loaded.name, loaded.family, loaded.prediction, loaded.dtype) == (family, family, "epsilon", torch.float32)
    assert loaded.hash == hashlib.sha256(original.path.read_bytes()).hexdigest()[:10]
    same(loaded.unet, original.unet)
    same(loaded.vae, original.vae)

    x, ids = torch.randn(2, 4, 8, 8), torch.randint(0, VOCABULARY - 2, (1, 77))
    added = {"text_embeds": torch.randn(2, 128), "time_ids": torch.rand(2, 6)} if family == "sdxl" else None
    context = torch.randn(2, 77, original.unet.config.cross_attention_dim)
    arguments = {"encoder_hidden_states": context, "added_cond_kwargs": added}
    time = torch.tensor(321.5)
    torch.testing.assert_close(loaded.unet(x, time, **arguments).sample, original.unet(x, time, **arguments).sample)
    torch.testing.assert_close(loaded.vae.decode(x).sample, original.vae.decode(x).sample)
    assert list(loaded.text_encoders) == list(original.encoders)
    for key, encoder in original.encoders.items():
        ours, theirs = loaded.text_encoders[key].model(ids), encoder(ids)
        torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state)
        if key == "clip_g":
            torch.testing.assert_close(ours.text_embeds, theirs.text_embeds)


def test_half_precision_is_for_the_unet_and_not_for_the_text_encoders(original: Original) -> None:
    loaded = load(original.path, device="cpu", dtype=torch.float16, prediction="epsilon")
    assert loaded.unet.dtype == loaded.dtype == torch.float16
    assert loaded.vae.dtype == (torch.float32 if loaded.family == "sdxl" else torch.float16)  # SDXL's overflows
    assert all(encoder.model.dtype == torch.float32 for encoder in loaded.text_encoders.values())


def test_sd2_is_768_pixels_where_it_predicts_v(original: Original) -> None:
    loaded = load(original.path, device="cpu", prediction="v")
    assert loaded.sample_size == {"sd1": 64, "sd2": 96, "sdxl": 128}[loaded.family]


def test_pads_as_the_family_does(original: Original) -> None:
    loaded = load(original.path, device="cpu", prediction="epsilon")
    pads = {key: encoder.tokenizer.pad_token for key, encoder in loaded.text_encoders.items()}
    assert pads == {key: "<|endoftext|>" if key == "clip_l" else "!" for key in pads}


OFFICIAL: dict[Family, dict[str, Any]] = {
    "sd1": {
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "sample_size": 64,
    },
    "sd2": {
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
        "sample_size": 64,
    },
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
    },
}


@pytest.mark.parametrize("family", quick_first(1, reversed(FAMILIES)))
def test_the_official_configurations_are_read_off_the_shapes(family: Family) -> None:
    official = OFFICIAL[family]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**official)
    state = unet.state_dict()
    shapes = {key: tuple(value.shape) for key, value in ldm_layout.unet(unet.config, state).items()}
    shapes["conditioner.embedders.1.model.text_projection"] = (1280, 1280)
    config = ldm._unet_config(Checkpoint("model", None, shapes, family, {}))
    with torch.device("meta"):
        read = UNet2DConditionModel(**config)
    for key, value in official.items():
        wanted = list(value) if isinstance(value, tuple) else value
        assert config[key] == wanted, key
    assert {key: value.shape for key, value in read.state_dict().items()} == {k: v.shape for k, v in state.items()}


def test_markers_of_v_prediction_and_of_a_schedule_that_ends_in_noise(
    sd1_tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "marked.safetensors"
    save_file(sd1_tensors | {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, path)
    loaded = load(path, device="cpu")
    assert loaded.prediction == "v"
    assert float(loaded.alphas_cumprod[-1]) == 2**-24
    assert load(path, device="cpu", prediction="epsilon").prediction == "epsilon"


def test_a_description_beside_the_file_is_read(sd1_tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "described.safetensors"
    save_file(sd1_tensors, path)
    path.with_suffix(".yaml").write_text(
        "model: {params: {parameterization: v, linear_end: 0.02, scale_factor: 0.5,"
        " unet_config: {params: {num_heads: 4}}}}",
        encoding="utf-8",
    )
    loaded = load(path, device="cpu")
    assert loaded.prediction == "v"
    assert loaded.vae.config.scaling_factor == 0.5
    assert loaded.unet.config.attention_head_dim == 4
    assert float(loaded.alphas_cumprod[-1] / loaded.alphas_cumprod[-2]) == pytest.approx(1 - 0.02)


@pytest.mark.parametrize(
    ("family", "prediction"), quick_first(1, [("sd2", "v"), ("sd1", "epsilon"), ("sdxl", "epsilon")])
)
def test_a_folder(family: Family, prediction: str, tmp_path: Path) -> None:
    folder = random_model(family, tmp_path / "model", seed=shaken(0))
    loaded: LoadedModel = load(folder, device="cpu", dtype=torch.bfloat16)
    assert (loaded.name, loaded.family, loaded.prediction) == ("model", family, prediction)
    assert loaded.unet.dtype == torch.bfloat16
    assert all(encoder.model.dtype == torch.float32 for encoder in loaded.text_encoders.values())
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(loaded.alphas_cumprod.double(), torch.cumprod(1 - betas, 0), rtol=1e-4, atol=0)
    assert len(loaded.hash) == 10 and loaded.hash == load(folder, device="cpu").hash


def test_what_a_unet_predicts_is_seen_at_the_noisiest_level(sd1_tensors: dict[str, Tensor]) -> None:
    """An epsilon model returns about its input there; a v model about -x0, which has nothing to do with it."""
    from embedding_estimate.hosts.standalone.loading import _probe

    class Echo(torch.nn.Module):
        config = type("Config", (), {"in_channels": 4, "cross_attention_dim": 8})
        device, dtype = torch.device("cpu"), torch.float32

        def __init__(self, gain: float):
            super().__init__()
            self.gain = gain

        def forward(self, x: Tensor, time: Tensor, encoder_hidden_states: Tensor) -> Any:
            return type("Output", (), {"sample": self.gain * x + 0.3})

    assert _probe(Echo(0.99), torch.linspace(1, 0.005, 1000)) == "epsilon"
    assert _probe(Echo(0.07), torch.linspace(1, 0.005, 1000)) == "v"
