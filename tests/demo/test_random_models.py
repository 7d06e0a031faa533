"""Tests of the tiny random models."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from shaking import shaken

from embedding_estimate.demo.random_models import Family, random_model

pytestmark = pytest.mark.slow

FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl")


def open_pipeline(directory: Path) -> DiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(directory)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_model_makes_a_picture(family: Family, tmp_path: Path) -> None:
    pipeline = open_pipeline(random_model(family, tmp_path / family, seed=shaken(0)))
    wanted = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    assert isinstance(pipeline, wanted)
    picture = pipeline("a red circle", num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (64, 64, 3)
    assert pipeline.unet.config.sample_size == 8
    assert sum(weight.numel() for weight in pipeline.unet.parameters()) < 150_000


def test_families_differ_where_loaders_look(tmp_path: Path) -> None:
    first, second, large = (open_pipeline(random_model(family, tmp_path / family)) for family in FAMILIES)
    assert first.scheduler.config.prediction_type == "epsilon"
    assert second.scheduler.config.prediction_type == "v_prediction"
    assert first.text_encoder.config.hidden_act == "quick_gelu"
    assert second.text_encoder.config.hidden_act == "gelu"
    assert first.tokenizer.pad_token_id == 49_407
    assert second.tokenizer.pad_token_id == 0
    assert (large.tokenizer.pad_token_id, large.tokenizer_2.pad_token_id) == (49_407, 0)
    assert large.unet.config.addition_embed_type == "text_time"
    assert large.unet.config.cross_attention_dim == 32 + 48


def test_contexts_have_a_mean_that_emphasis_can_restore(tmp_path: Path) -> None:
    pipeline = open_pipeline(random_model("sd1", tmp_path, seed=shaken(0)))
    tokens = pipeline.tokenizer("a red circle", padding="max_length", return_tensors="pt").input_ids
    assert abs(pipeline.text_encoder(tokens).last_hidden_state.mean()) > 0.02


def test_weights_come_from_the_seed_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    paths = [random_model("sd1", tmp_path / str(index), seed) for index, seed in enumerate((0, 0, 1))]
    assert torch.equal(torch.get_rng_state(), state)
    first, same, other = ((path / "unet/diffusion_pytorch_model.safetensors").read_bytes() for path in paths)
    assert first == same
    assert first != other
