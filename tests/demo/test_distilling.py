"""Tests of the tool that gives the demo model another text side."""

import sys
from pathlib import Path

import distil_demo_model
import pytest
import torch
from demo_text import CaptionCoder, EncoderShape
from demo_texts import Reader, Texts
from demo_world import PALETTES
from diffusers import AutoencoderKL, UNet2DConditionModel
from distil_demo_model import SHAPES, contexts, explained, first_readout, new_texts, told, unet_for
from shaking import shaken
from transformers import CLIPTextModel, CLIPTokenizer

from embedding_estimate.demo import demo_model_path
from embedding_estimate.hosts.standalone.host import StandaloneHost

pytestmark = pytest.mark.slow

EMPTY: distil_demo_model.Text = [[]]


@pytest.fixture(scope="module")
def encoder() -> CLIPTextModel:
    return CLIPTextModel.from_pretrained(demo_model_path() / "text_encoder").float().eval()


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(demo_model_path() / "unet").float().eval()


@pytest.fixture(scope="module")
def teacher(encoder: CLIPTextModel) -> Texts:
    tokenizer = CLIPTokenizer.from_pretrained(demo_model_path() / "tokenizer")
    return Texts([Reader(EncoderShape(), encoder, CaptionCoder(tokenizer, PALETTES["primary"]))])


@pytest.fixture(scope="module")
def text(teacher: Texts) -> distil_demo_model.Text:
    return [[token for word in ("a", "red", "circle", ",", "blurry") for token in teacher.readers[0].coder.ids(word)]]


@torch.no_grad()
def test_as_many_layers_without_noise_are_the_teacher(
    encoder: CLIPTextModel, teacher: Texts, text: distil_demo_model.Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil_demo_model, "NOISE", 0.0)
    texts = new_texts([EncoderShape()], encoder, shaken(0))
    torch.testing.assert_close(contexts(texts, [text]), contexts(teacher, [text]))


@torch.no_grad()
def test_states_without_a_norm_have_a_mean_and_are_read_as_the_teacher_s(
    encoder: CLIPTextModel, teacher: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil_demo_model, "NOISE", 0.0)
    texts = new_texts(SHAPES["sdxl"][:1], encoder, shaken(0))
    readout = first_readout(teacher, texts, shaken(0))
    drawn = [[[token]] for token in range(320, 384)]
    states, wanted = contexts(texts, drawn), contexts(teacher, drawn)
    assert states.mean() / states.std() == pytest.approx(-0.5, abs=0.1)
    assert (readout(states) - wanted).square().mean() < 0.05 * wanted.var()


@torch.no_grad()
def test_the_unet_reads_new_rows_as_it_read_the_old_ones(
    encoder: CLIPTextModel, unet: UNet2DConditionModel, text: distil_demo_model.Text
) -> None:
    texts = new_texts(SHAPES["sdxl"], encoder, shaken(0))
    readout = torch.randn(96, texts.width) / 20
    new, latents = unet_for(texts, unet, readout), torch.randn(1, 4, 16, 16)
    given, nothing = told(texts, [text]), told(texts, [EMPTY])
    read = unet(latents, 500, given["encoder_hidden_states"] @ readout.T).sample
    with_empty_pooled = new(latents, 500, **(given | {"added_cond_kwargs": nothing["added_cond_kwargs"]})).sample
    torch.testing.assert_close(with_empty_pooled, read, atol=1e-4, rtol=1e-4)
    moved = (new(latents, 500, **given).sample - read).norm() / read.norm()
    assert 1e-4 < moved < 0.5  # the pooled state has an effect, and a small one


def test_a_model_explains_itself(teacher: Texts, unet: UNet2DConditionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil_demo_model, "HELD_OUT", 3)
    vae = AutoencoderKL.from_pretrained(demo_model_path() / "vae").float().eval()
    assert explained(teacher, unet, teacher, unet, vae) == 1


@pytest.mark.parametrize(("kind", "family"), [("deep", "sd1"), ("sdxl", "sdxl")])
def test_a_new_model_opens(kind: str, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil_demo_model, "BATCH", 2)
    monkeypatch.setattr(distil_demo_model, "HELD_OUT", 2)
    monkeypatch.setattr(
        sys, "argv", ["", "--kind", kind, "--steps", "1", "--work", str(tmp_path), "--out", str(tmp_path / "model")]
    )
    distil_demo_model.main()
    with StandaloneHost.load(tmp_path / "model", device="cpu").borrow() as model:
        assert model.info.family == family
