"""Tests that a checkpoint in LDM's layout, wide enough for its 32 groups, computes what the narrow model computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from demo_export import export_model
from diffusers import AutoencoderKL, UNet2DConditionModel
from export_ldm import export_ldm
from ldm_widening import EMPTY, around_seam, first_copies, placed, repeats_groups
from shaking import shaken
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from embedding_estimate.demo import demo_model_path
from embedding_estimate.demo.random_models import random_model
from embedding_estimate.hosts.standalone.loading import LoadedModel, load

pytestmark = [pytest.mark.slow, pytest.mark.tools]

WIDTH = 16  # of the text encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model's architecture, a quarter as wide, with random weights."""
    torch.manual_seed(shaken(0))
    out = tmp_path_factory.mktemp("narrow") / "model"
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=0.5,
    )
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49_408,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=49_406,
            eos_token_id=49_407,
        )
    )
    for module in (unet, vae, encoder):
        vary_norms(module)
    export_model(out, vae, [encoder], unet, demo_model_path() / "tokenizer")
    return out


@pytest.fixture(scope="module")
def narrow(folder: Path) -> LoadedModel:
    return load(folder, device="cpu")


@pytest.fixture(scope="module")
def checkpoint(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wide") / "model.safetensors"
    export_ldm(folder, out)
    return out


@pytest.fixture(scope="module")
def wide(checkpoint: Path) -> LoadedModel:
    """Read by diffusers' own converter, whose norms have 32 groups where nothing says otherwise."""
    return load(checkpoint, device="cpu")


@torch.no_grad()
def vary_norms(model: nn.Module) -> None:
    """Give norms weights: at 1 and 0 it would not show if they came to the wrong channels."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)


def difference(got: Tensor, wanted: Tensor) -> float:
    """Relative to the size of what is wanted."""
    return ((got - wanted).norm() / wanted.norm()).item()


@torch.no_grad()
@pytest.mark.parametrize("time", [0, 500, 999])
def test_the_wide_unet_predicts_the_same(narrow: LoadedModel, wide: LoadedModel, time: int) -> None:
    torch.manual_seed(shaken(1))
    latent, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, WIDTH)
    wanted, got = (model.unet(latent, time, context).sample for model in (narrow, wide))
    assert wide.unet.config.block_out_channels == [64, 128]
    assert wide.unet.config.norm_num_groups == 32
    assert difference(got, wanted) < 1e-5


@torch.no_grad()
def test_the_wide_vae_encodes_and_decodes_the_same(narrow: LoadedModel, wide: LoadedModel) -> None:
    torch.manual_seed(shaken(2))
    picture, latent = torch.randn(1, 3, 32, 32), torch.randn(1, 4, 4, 4)
    wanted, got = (model.vae.encode(picture).latent_dist.parameters for model in (narrow, wide))
    assert difference(got, wanted) < 1e-5
    wanted, got = (model.vae.decode(latent).sample for model in (narrow, wide))
    assert difference(got, wanted) < 1e-5
    assert wide.vae.config.scaling_factor == 0.5


@torch.no_grad()
def test_the_text_encoder_and_the_noise_schedule_are_the_same(narrow: LoadedModel, wide: LoadedModel) -> None:
    tokens = torch.tensor([[49_406, 320, 1125, 49_407]])
    wanted, got = (model.text_encoders["clip_l"].model(tokens).last_hidden_state for model in (narrow, wide))
    assert torch.equal(got, wanted)
    assert torch.equal(wide.alphas_cumprod, narrow.alphas_cumprod)
    assert (wide.family, wide.prediction) == ("sd1", "epsilon")


def test_the_description_fits_the_checkpoint(checkpoint: Path) -> None:
    params: dict[str, Any] = yaml.safe_load(checkpoint.with_suffix(".yaml").read_text("utf-8"))["model"]["params"]
    unet, vae = params["unet_config"]["params"], params["first_stage_config"]["params"]["ddconfig"]
    assert (unet["model_channels"], unet["channel_mult"], unet["num_heads"]) == (64, [1, 2], 4)
    assert (vae["ch"], vae["ch_mult"]) == (32, [1, 2, 2, 2])
    clip = Path(params["cond_stage_config"]["params"]["version"])
    assert clip.is_absolute()
    assert {"config.json", "merges.txt", "vocab.json"} <= {path.name for path in clip.iterdir()}


def test_the_layouts_repeat_groups_alone_and_in_every_concatenation() -> None:
    left, right = around_seam(128, 64), around_seam(64, 64)
    for first, second in ((left, left), (left, right), (right, right)):
        channels = max(first) + max(second) + 2
        both = first + [max(first) + 1 + channel for channel in second]
        assert repeats_groups(both, channels, 8)
    assert repeats_groups(left, 128, 8) and repeats_groups(right, 64, 8)
    plain = [*range(128)] * 4 + [128 + channel for channel in range(64)] * 4
    assert not repeats_groups(plain, 192, 8)  # plain copies do not survive the seam


def test_repeated_channels_are_read_once() -> None:
    """Outputs (a, b) as (a, b, a, 0), inputs (x, y) as (x, x, y): only the first x has weights."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    got = placed(weight, [0, 1, 0, EMPTY], first_copies([0, 0, 1]))
    assert got.tolist() == [[1, 0, 2], [3, 0, 4], [1, 0, 2], [0, 0, 0]]


def test_a_model_that_cannot_be_exact_is_refused(tmp_path: Path) -> None:
    random_model("sd1", tmp_path / "model")  # four groups
    with pytest.raises(ValueError, match=r"input_blocks\.1\.0\.in_layers\.0: 4 groups of 8 channels do not fit"):
        export_ldm(tmp_path / "model", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
