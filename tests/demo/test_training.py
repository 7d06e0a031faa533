"""Tests of the training tool's parts."""

from pathlib import Path

import demo_checkpoint
import demo_unet
import pytest
import torch
from demo_checkpoint import Checkpoint
from demo_text import CaptionCoder, final_norm, new_text_encoder
from demo_unet import new_scheduler, rate_in_cycles, train_unet
from demo_vae import draw_latents, equalise_latents, new_vae
from demo_world import PALETTES
from diffusers import DDIMScheduler
from transformers import CLIPTokenizer

from embedding_estimate.demo import demo_model_path

PRIMARY = PALETTES["primary"]


def test_equalised_latents_have_one_scale_and_decode_as_before() -> None:
    torch.manual_seed(0)
    vae = new_vae().eval().requires_grad_(False)
    latents = draw_latents(vae, PRIMARY, 16, seed=0)  # (16, 4, 16, 16)
    before = vae.decode(latents).sample
    mean, gain = latents.mean((0, 2, 3)), latents.std() / latents.std((0, 2, 3))
    equalise_latents(vae, latents)
    moved = (latents - mean.view(4, 1, 1)) * gain.view(4, 1, 1)
    torch.testing.assert_close(vae.decode(moved).sample, before, atol=1e-4, rtol=1e-4)
    again = draw_latents(vae, PRIMARY, 16, seed=0)
    torch.testing.assert_close(again, moved, atol=1e-3, rtol=1e-3)
    assert vae.config.scaling_factor == pytest.approx(1 / latents.std().item(), abs=1e-3)


def test_learning_rate_falls_in_every_cycle() -> None:
    rates = [rate_in_cycles(step, [400, 200]) for step in range(600)]
    assert rates[100] == max(rates)
    assert rates[399] < rates[100] / 20
    assert rates[100] > rates[500] > 5 * rates[599]


def test_a_scheduler_made_from_the_configuration_does_not_clip() -> None:
    assert DDIMScheduler.from_config(new_scheduler().config).config.clip_sample is False


def test_final_bias_is_off_zero() -> None:
    assert final_norm(new_text_encoder()).bias.mean() < -0.05


def test_an_interruption_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_unet, "SCENES", 8)
    monkeypatch.setattr(demo_unet, "BATCH", 4)
    monkeypatch.setattr(demo_checkpoint, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    torch.manual_seed(0)
    vae, encoder = (model.eval().requires_grad_(False) for model in (new_vae(), new_text_encoder()))
    coder = CaptionCoder(CLIPTokenizer.from_pretrained(demo_model_path() / "tokenizer"), PRIMARY)

    def train(name: str) -> torch.Tensor:
        checkpoint, latents = Checkpoint(tmp_path / name), tmp_path / "latents.pt"
        average = train_unet(vae, encoder, coder, PRIMARY, [2, 1], 0, checkpoint, latents)
        return torch.cat([weight.flatten() for weight in average.parameters()])

    def interrupt(progress: demo_checkpoint.Progress, step: int, **values: float) -> None:
        if step == 1:
            raise KeyboardInterrupt

    whole = train("whole.pt")
    with monkeypatch.context() as patch:
        patch.setattr(demo_checkpoint.Progress, "report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train("parts.pt")
    torch.testing.assert_close(train("parts.pt"), whole)
