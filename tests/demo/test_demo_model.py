"""Tests of the model that ships with the package."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from embedding_estimate.demo import demo_model_path

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(demo_model_path()).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_it_is_small() -> None:
    files = [path for path in demo_model_path().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25 * MEGABYTE


def test_its_configuration_names_no_machine() -> None:
    for path in demo_model_path().rglob("*config.json"):
        assert "_name_or_path" not in path.read_text("utf-8")


def test_its_architecture_is_that_of_stable_diffusion_1(pipeline: StableDiffusionPipeline) -> None:
    assert pipeline.safety_checker is None
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert pipeline.scheduler.config.beta_schedule == "scaled_linear"
    assert pipeline.text_encoder.config.num_hidden_layers == 6
    assert pipeline.text_encoder.config.hidden_act == "quick_gelu"
    assert pipeline.unet.config.down_block_types == ["CrossAttnDownBlock2D"] * 2
    assert pipeline.vae_scale_factor == 8


def test_its_tokenizer_is_clip_s(pipeline: StableDiffusionPipeline) -> None:
    tokenizer = pipeline.tokenizer
    assert len(tokenizer) == 49_408
    assert tokenizer("A photo of a cat")["input_ids"] == [49_406, 320, 1125, 539, 320, 2368, 49_407]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 49_407


@pytest.mark.slow
def test_it_obeys_a_plain_prompt(pipeline: StableDiffusionPipeline) -> None:
    picture = pipeline(
        "a yellow circle on a blue background",
        num_inference_steps=15,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]  # (128, 128, 3), 0..1
    red, green, blue = picture[-8:].mean((0, 1))
    assert blue > max(red, green) + 0.2
    yellow = np.minimum(picture[..., 0], picture[..., 1]) > picture[..., 2] + 0.2  # (128, 128)
    assert 0.03 < yellow.mean() < 0.5
