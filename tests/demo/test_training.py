"""Tests of the training tool's parts."""

import sys
from dataclasses import replace
from pathlib import Path

import demo_checkpoint
import demo_unet
import pytest
import torch
import train_demo_model
from demo.untrained import TOKENIZER, untrained_texts
from demo_checkpoint import Checkpoint
from demo_text import CaptionCoder, EncoderShape, final_norm, new_text_encoder
from demo_unet import new_scheduler, new_unet, rate_in_cycles, take_weights, train_unet
from demo_vae import draw_latents, equalise_latents, new_vae
from demo_world import PALETTES
from diffusers import DDIMScheduler
from shaking import shaken
from transformers import CLIPTokenizer

from embedding_estimate.demo import demo_model_path

pytestmark = [pytest.mark.slow, pytest.mark.tools]

PRIMARY = PALETTES["primary"]


def test_equalised_latents_have_one_scale_and_decode_as_before() -> None:
    torch.manual_seed(shaken(0))
    vae = new_vae().eval().requires_grad_(False)
    latents = draw_latents(vae, PRIMARY, 16, seed=shaken(0))  # (16, 4, 16, 16)
    before = vae.decode(latents).sample
    mean, gain = latents.mean((0, 2, 3)), latents.std() / latents.std((0, 2, 3))
    equalise_latents(vae, latents)
    moved = (latents - mean.view(4, 1, 1)) * gain.view(4, 1, 1)
    torch.testing.assert_close(vae.decode(moved).sample, before, atol=1e-4, rtol=1e-4)
    again = draw_latents(vae, PRIMARY, 16, seed=shaken(0))
    torch.testing.assert_close(again, moved, atol=1e-3, rtol=1e-3)
    assert vae.config.scaling_factor == pytest.approx(1 / latents.std().item(), abs=1e-3)


def test_learning_rate_falls_in_every_cycle() -> None:
    rates = [rate_in_cycles(step, [400, 200], peak=1e-3) for step in range(600)]
    assert rates[100] == max(rates)
    assert rates[399] < rates[100] / 20
    assert rates[100] > rates[500] > 5 * rates[599]


def test_a_scheduler_made_from_the_configuration_does_not_clip() -> None:
    assert DDIMScheduler.from_config(new_scheduler().config).config.clip_sample is False


def test_final_bias_is_off_zero() -> None:
    assert final_norm(new_text_encoder(EncoderShape())).bias.mean() < -0.05


def test_what_fits_of_a_trained_unet_is_taken() -> None:
    trained, unet = new_unet(untrained_texts("sd1")), new_unet(untrained_texts("sdxl"))
    take_weights(unet, trained)
    before, after = trained.state_dict(), unet.state_dict()
    taken = {name for name in after if name in before and torch.equal(before[name].flatten(), after[name].flatten())}
    new = {name for name in after.keys() - taken if not name.startswith("add_embedding")}
    assert "mid_block.attentions.0.proj_in.weight" in taken  # a convolution there, a linear layer here
    assert new == {name for name in after if "attn2.to_k" in name or "attn2.to_v" in name}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_an_interruption_changes_nothing(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_unet, "SCENES", 8)
    monkeypatch.setattr(demo_unet, "BATCH", 2)
    monkeypatch.setattr(demo_checkpoint, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    torch.manual_seed(shaken(0))
    vae, texts = new_vae().eval().requires_grad_(False), untrained_texts(family)

    def train(name: str) -> torch.Tensor:
        checkpoint, latents = Checkpoint(tmp_path / name), tmp_path / "latents.pt"
        average = train_unet(vae, texts, PRIMARY, [1, 1], 0, checkpoint, latents)
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


@pytest.mark.parametrize(("world", "attributes"), [("single", 13), ("pairs", 17)])
def test_the_world_asked_for_is_learned(
    world: str, attributes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = f"--world {world} --layers 1 --text-steps 1 --until text --threads {torch.get_num_threads()}"
    folders = ["--start-from", str(demo_model_path()), "--work", str(tmp_path), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["train_demo_model.py", *options.split(), *folders])
    train_demo_model.main()
    heads = torch.load(tmp_path / "text.pt", weights_only=True)["heads"]
    coder = CaptionCoder(CLIPTokenizer.from_pretrained(TOKENIZER), replace(PRIMARY, pairs=world == "pairs"))
    assert len(coder.class_counts()) == attributes
    assert len(heads["0.bias"]) == sum(coder.class_counts())
