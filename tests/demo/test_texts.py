"""Tests of what the U-Net is told in training: the same as when the model is used."""

import copy
from pathlib import Path

import demo_sampling
import demo_text
import numpy as np
import pytest
import torch
from demo.untrained import TOKENIZER, untrained_texts
from demo_captions import Phrase
from demo_checkpoint import Checkpoint
from demo_export import export_model
from demo_sampling import DemoModel
from demo_text import distance_from_norm, encoder_shapes, train_text_encoder
from demo_texts import Texts
from demo_unet import new_unet
from demo_vae import new_vae
from demo_world import PALETTES
from shaking import shaken
from transformers import CLIPTokenizer

from embedding_estimate.hosts.standalone.host import StandaloneHost

pytestmark = [pytest.mark.slow, pytest.mark.tools]

PROMPT = "a red circle on a blue background"


@pytest.fixture(scope="module")
def texts() -> Texts:
    return untrained_texts("sdxl")


@pytest.fixture(scope="module")
def folder(texts: Texts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of SDXL's kind, exported as it is before training."""
    out = tmp_path_factory.mktemp("exported") / "model"
    encoders = [reader.encoder.half().float() for reader in texts.readers]  # as the files will hold them
    export_model(out, new_vae(), copy.deepcopy(encoders), new_unet(texts), TOKENIZER)
    return out


def told(texts: Texts, kept: tuple[bool, bool] = (True, True)) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, _ = texts.encode([Phrase(PROMPT)])
    arguments = texts.told(torch.from_numpy(tokens)[None], torch.tensor([kept]))
    return arguments["encoder_hidden_states"], arguments["added_cond_kwargs"]["text_embeds"]


def test_the_host_reads_an_export_as_it_was_trained(texts: Texts, folder: Path) -> None:
    with StandaloneHost.load(folder, device="cpu").borrow() as model:
        assert model.info.family == "sdxl"
        [stage] = model.encode(PROMPT, evaluations=1, width=128, height=128)
        conditioning = stage.parts[0][0]
    context, pooled = told(texts)
    torch.testing.assert_close(conditioning.context, context)
    torch.testing.assert_close(conditioning.vector[:, :-6], pooled)


def test_the_measuring_tool_reads_an_export_as_it_was_trained(texts: Texts, folder: Path) -> None:
    measured = DemoModel(folder).told(PROMPT)
    context, pooled = told(texts)
    torch.testing.assert_close(measured.context, context)
    torch.testing.assert_close(measured.pooled, pooled)


def test_emphasis_restores_the_mean_of_each_encoder(folder: Path) -> None:
    model = DemoModel(folder)
    plain, emphasised = model.told(PROMPT).context, model.emphasised(PROMPT, "red", 1.5).context
    for before, after in zip(plain.split([96, 128], -1), emphasised.split([96, 128], -1), strict=True):
        torch.testing.assert_close(after.mean(), before.mean())
        ratio = (after / before).mean(-1)[0]  # (77,)
        torch.testing.assert_close(ratio[2] / ratio[1], torch.tensor(1.5))


def test_an_export_draws(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_sampling, "STEPS", 2)
    model = DemoModel(folder)
    picture, other = model.sample([model.told(PROMPT), model.told("a star")], seed=shaken(0))
    assert picture.shape == (128, 128, 3)
    assert np.any(picture != other)


def test_each_tokenizer_fills_up_with_its_own_token(texts: Texts) -> None:
    tokens, end = texts.encode([Phrase(PROMPT)])
    first, second = tokens  # (77,) each
    assert first[end] == second[end] == 49_407
    assert set(first[end + 1 :]) == {49_407}
    assert set(second[end + 1 :]) == {0}


def test_what_is_not_kept_is_zero(texts: Texts) -> None:
    context, pooled = told(texts, kept=(True, False))
    assert context.any()
    assert not pooled.any()


def test_states_without_a_norm_are_kept_near_one() -> None:
    torch.manual_seed(shaken(0))
    normal = demo_text.UNNORMED_MEAN + torch.randn(8, 77, 96)
    assert distance_from_norm(normal) < 1e-3
    assert distance_from_norm(3 * normal) == pytest.approx(5.0, abs=0.2)
    assert distance_from_norm(normal + 1) == pytest.approx(1.0, abs=0.05)


def test_a_pooled_encoder_learns_from_both_outputs(tmp_path: Path) -> None:
    shape = encoder_shapes("sdxl", layers=3)[1]
    before = untrained_texts("sdxl").readers[1].encoder.state_dict()
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER, pad_token=shape.pad_token)
    encoder = train_text_encoder(shape, tokenizer, PALETTES["primary"], 1, 0, Checkpoint(tmp_path / "text.pt"))
    assert encoder.text_projection.weight.grad is not None
    assert before.keys() == encoder.state_dict().keys()
