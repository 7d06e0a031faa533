"""The WebUI's own pictures: what is taught is what it makes, and after a job it makes the same as before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hosts.attention_contract import AttentionContract
from hosts.contract import PLAIN, encode_vectors, latent, only
from safetensors.torch import save_file
from torch import Tensor

from embedding_estimate.hosts.webui.host import WebuiHost, WebuiModel
from embedding_estimate.hosts.webui.kind import kind
from embedding_estimate.model.host import BorrowedModel, Conditioning

PROMPT = "a (red circle:1.3) on a [blue:green:0.5] square"
LORA = "embedding_estimate_test"
TYPED = f"<lora:{LORA}:1>"
HYPERNETWORK = "embedding_estimate_hypernetwork"
HYPERNETWORK_TYPED = f"<hypernet:{HYPERNETWORK}:1>"
Generate = Callable[..., Tensor]


def taught(prompt: str, sampler: str = "Euler") -> Tensor:
    """The picture (3, H, W) in [0, 255] as the teacher makes it."""
    with WebuiHost([prompt]).borrow() as model:
        stages = model.encode(prompt, evaluations=model.evaluations(sampler, 4), width=64, height=64)

        def denoise(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
            stage = next(stage for stage in stages if evaluation <= stage.until)
            return model.denoise(x, sigma, stage.parts[0][0])

        latents = model.sample(denoise, sampler=sampler, schedule="Automatic", steps=4, seeds=[1], width=64, height=64)
        return model.decode(latents)[0] * 255


def learn(model: BorrowedModel) -> None:
    """One step's passes."""
    vectors = {key: value.clone().requires_grad_() for key, value in model.token_vectors(PLAIN).items()}
    denoised = model.denoise(latent(model, 1), torch.ones(1, device=model.device), encode_vectors(model, vectors))
    denoised.square().mean().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in vectors.values())


def layers_by_name(model: Any) -> dict[str, Any]:
    """Two layers by the names that files use."""
    objects = getattr(model, "forge_objects", None)
    if objects is not None and not hasattr(model, "model"):  # Forge and Neo
        return _layers_in_forge(objects)
    unet = model.model.diffusion_model
    if getattr(model, "is_sdxl", False):
        encoder = model.conditioner.embedders[0].wrapped.transformer.text_model.encoder.layers[0].mlp.fc1
        place, layer = next((name, part) for name, part in unet.named_modules() if name.endswith("attn2.to_v"))
        return {"lora_te1_text_model_encoder_layers_0_mlp_fc1": encoder, f"lora_unet_{place.replace('.', '_')}": layer}
    clip = model.cond_stage_model.wrapped
    open_clip = hasattr(clip, "model")  # SD2's
    first = clip.model.transformer.resblocks[0] if open_clip else clip.transformer.text_model.encoder.layers[0]
    return {
        "lora_te_text_model_encoder_layers_0_mlp_fc1": first.mlp.c_fc if open_clip else first.mlp.fc1,
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v": (
            unet.input_blocks[1][1].transformer_blocks[0].attn2.to_v
        ),
    }


def _layers_in_forge(objects: Any) -> dict[str, Any]:
    encoders = objects.clip.cond_stage_model
    encoder = encoders.clip_l.transformer.text_model.encoder.layers[0].mlp.fc1
    named = objects.unet.model.diffusion_model.named_modules()
    place, layer = next((name, part) for name, part in named if name.endswith("attn2.to_v"))
    text = "te1" if hasattr(encoders, "clip_g") else "te"
    return {
        f"lora_{text}_text_model_encoder_layers_0_mlp_fc1": encoder,
        f"lora_unet_{place.replace('.', '_')}": layer,
    }


@pytest.fixture
def lora(webui: Any) -> Iterator[None]:
    """A random LoRA for one layer of a text encoder and one of the U-Net, among the WebUI's own."""
    layers = layers_by_name(webui.sd_model)
    tensors = {}
    for name, layer in layers.items():
        outputs, inputs = layer.weight.shape
        tensors[f"{name}.lora_up.weight"] = torch.randn(outputs, 2) * 0.2
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, inputs) * 0.2
        tensors[f"{name}.alpha"] = torch.tensor(2.0)
    file = Path(os.environ["WEBUI_DIR"]) / "models/Lora" / f"{LORA}.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(tensors, file)
    yield
    file.unlink()


@pytest.fixture
def hypernetwork(webui: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A random hypernetwork, for cross attention, among the WebUI's own."""
    if hasattr(webui.sd_model, "forge_objects"):
        yield  # nothing is done with one
        return
    from modules.hypernetworks.hypernetwork import Hypernetwork

    with WebuiHost().borrow() as model:
        width = only(model.encode(PLAIN, evaluations=4, width=64, height=64)).context.shape[-1]
    layers = {"layer_structure": [1, 2, 1], "activation_func": "relu", "weight_init": "KaimingNormal"}
    file = Path(webui.cmd_opts.hypernetwork_dir) / f"{HYPERNETWORK}.pt"
    with monkeypatch.context() as patch:  # of a newer torch's zip files the WebUI thinks that they are bad
        patch.setattr(torch, "save", partial(torch.save, _use_new_zipfile_serialization=False))
        Hypernetwork(HYPERNETWORK, [width], **layers).save(str(file))
    webui.reload_hypernetworks()
    yield
    file.unlink()
    webui.reload_hypernetworks()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("CLIP_stop_at_last_layers", 1),
        ("CLIP_stop_at_last_layers", 2),
        ("emphasis", "No norm"),
        ("enable_emphasis", False),  # an early WebUI's
        ("use_old_scheduling", True),
        ("sd_noise_schedule", "Zero Terminal SNR"),
        ("use_downcasted_alpha_bar", True),
        ("sgm_noise_multiplier", True),
        ("always_discard_next_to_last_sigma", True),
    ],
)
def test_the_teacher_is_the_webui_as_it_is_set_up(
    webui: Any, generated: Generate, monkeypatch: pytest.MonkeyPatch, option: str, value: object
) -> None:
    if option not in webui.opts.data_labels:
        pytest.skip("this WebUI has no such setting")
    monkeypatch.setitem(webui.opts.data, option, value)
    torch.testing.assert_close(taught(PROMPT), generated(PROMPT).float(), rtol=0, atol=2)


@pytest.mark.parametrize("sampler", ["Euler a", "Heun", "DPM++ 2M", "DPM++ SDE"])
def test_also_with_other_samplers(webui: Any, generated: Generate, sampler: str) -> None:
    torch.testing.assert_close(taught(PROMPT, sampler), generated(PROMPT, sampler).float(), rtol=0, atol=2)


def test_restarts_draw_from_the_seeds(webui: Any) -> None:
    """This sampler takes no noise; it restarts from 20 steps on."""
    with WebuiHost().borrow() as model:
        if "Restart" not in model.samplers:
            pytest.skip("this WebUI has no such sampler")

        def latents(*seeds: int) -> Tensor:
            size = {"width": 64, "height": 64, "schedule": "Karras", "sampler": "Restart", "steps": 20}
            return model.sample(lambda x, sigma, evaluation: x / 2, seeds=seeds, **size)

        alone = latents(7)
        torch.randn(3)
        torch.testing.assert_close(latents(8, 7)[1], alone[0])


def test_also_with_a_new_embedding(webui: Any, generated: Generate) -> None:
    with WebuiHost().borrow() as model:
        vectors = {key: torch.randn(3, width) * 0.02 for key, width in model.info.widths.items()}
    file = Path(webui.cmd_opts.embeddings_dir) / "embedding_estimate_test.safetensors"
    save_file(vectors if len(vectors) > 1 else {"emb_params": next(iter(vectors.values()))}, file)
    kind().read_embeddings_anew(None)  # Forge reads none before an image
    try:
        prompt = "a (embedding_estimate_test:1.3) square"
        torch.testing.assert_close(taught(prompt), generated(prompt).float(), rtol=0, atol=2)
        with WebuiHost().borrow() as model:
            assert "embedding_estimate_test" in model.embedding_names()
            for key, found in model.token_vectors("embedding_estimate_test").items():
                torch.testing.assert_close(found.cpu(), vectors[key], rtol=1e-3, atol=1e-4)
    finally:
        file.unlink()
        kind().read_embeddings_anew(None)


def different(one: Tensor, other: Tensor) -> bool:
    """Whether two pictures can be told apart."""
    return bool((one.float() - other.float()).abs().max() > 4)


@pytest.mark.parametrize("typed", [TYPED, HYPERNETWORK_TYPED])
def test_also_with_an_extra_network(
    webui: Any, generated: Generate, lora: None, hypernetwork: None, typed: str
) -> None:
    if typed == HYPERNETWORK_TYPED and hasattr(webui.sd_model, "forge_objects"):
        pytest.skip("reForge and Forge do nothing with hypernetworks")
    picture = generated(PROMPT + typed)
    assert different(picture, generated(PROMPT))
    torch.testing.assert_close(taught(PROMPT + typed), picture.float(), rtol=0, atol=2)


@pytest.mark.parametrize("typed", [TYPED, HYPERNETWORK_TYPED])
def test_text_is_read_through_an_extra_network(webui: Any, lora: None, hypernetwork: None, typed: str) -> None:
    if typed == HYPERNETWORK_TYPED and hasattr(webui.sd_model, "forge_objects"):
        pytest.skip("reForge and Forge do nothing with hypernetworks")
    with WebuiHost([typed]).borrow() as model:
        AttentionContract().test_text_is_read_where_it_says(model)


@pytest.mark.parametrize("typed", [TYPED, HYPERNETWORK_TYPED])
def test_also_with_an_extra_network_that_the_settings_add(
    webui: Any, generated: Generate, lora: None, hypernetwork: None, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    kind, name, _ = typed.strip("<>").split(":")
    if kind == "hypernet" and hasattr(webui.sd_model, "forge_objects"):
        pytest.skip("reForge and Forge do nothing with hypernetworks")
    plain = generated(PROMPT)
    with monkeypatch.context() as patch:
        patch.setitem(webui.opts.data, {"lora": "sd_lora", "hypernet": "sd_hypernetwork"}[kind], name)
        picture = generated(PROMPT)
        assert different(picture, plain)
        torch.testing.assert_close(taught(PROMPT), picture.float(), rtol=0, atol=2)
        with WebuiHost([PROMPT]).borrow() as model:
            learn(model)
            [note] = model.notes(PROMPT)
            assert f"<{kind}:{name}:1" in note and "the settings add" in note
        assert torch.equal(generated(PROMPT), picture)
    assert torch.equal(generated(PROMPT), plain)


def classes_of(model: Any) -> list[type]:
    """Those of all parts that a model runs on."""
    objects = getattr(model, "forge_objects", None)
    root = model if objects is None else objects.unet.model
    return [type(part) for part in root.modules()]


def test_merged_tokens_pass_gradients_and_are_given_back(
    webui: Any, generated: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "token_merging_ratio" not in webui.opts.data_labels:
        pytest.skip("this WebUI has no such setting")
    plain, classes = generated(PROMPT), classes_of(webui.sd_model)
    with monkeypatch.context() as patch:
        patch.setitem(webui.opts.data, "token_merging_ratio", 0.5)
        with WebuiHost([PROMPT]).borrow() as model:
            learn(model)
            left_out = [note for note in model.notes(PROMPT) if "token merging" in note]
        if hasattr(webui.sd_model, "forge_objects"):  # which draws at random what it merges
            assert len(left_out) == 1
        else:
            ours, theirs = taught(PROMPT).floor(), generated(PROMPT).float()  # it leaves away what is below 1
            assert left_out == [] and (ours == theirs).float().mean() > 0.99 > (ours == plain).float().mean()
    assert classes_of(webui.sd_model) == classes
    assert torch.equal(generated(PROMPT), plain)


def test_a_lora_of_the_prompts_is_active_in_encoder_and_unet(webui: Any, lora: None) -> None:
    def passes(model: WebuiModel) -> tuple[Tensor, Tensor, Tensor]:
        teacher = only(model.encode(f"{PLAIN}{TYPED}", evaluations=4, width=64, height=64))
        student = encode_vectors(model, model.token_vectors(f"{PLAIN}{TYPED}"))
        generator = torch.Generator().manual_seed(0)
        fixed = torch.randn(teacher.context.shape, generator=generator)
        vector = None if teacher.vector is None else torch.randn(teacher.vector.shape, generator=generator)
        denoised = model.denoise(latent(model, 1), torch.ones(1), Conditioning(fixed, vector))
        return teacher.context, student.context, denoised

    with WebuiHost().borrow() as model:
        without = passes(model)
    with WebuiHost([f"{PLAIN} {TYPED}", f"again {TYPED}"]).borrow() as model:
        active = passes(model)
        assert [TYPED in note for note in model.notes(PROMPT + TYPED)] == [True] and model.notes(PROMPT) == []
    for ours, theirs in zip(without, active, strict=True):
        assert not torch.allclose(ours, theirs, atol=1e-3)
    torch.testing.assert_close(active[0], active[1], rtol=1e-5, atol=1e-5)
    with WebuiHost().borrow() as model:
        for ours, theirs in zip(without, passes(model), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("texts", [[PROMPT], [PROMPT + TYPED], [PROMPT + HYPERNETWORK_TYPED]])
@pytest.mark.parametrize("fails", [False, True])
def test_the_next_picture_is_the_same_to_the_bit(
    webui: Any, generated: Generate, lora: None, hypernetwork: None, texts: Sequence[str], fails: bool
) -> None:
    if HYPERNETWORK_TYPED in texts[0] and hasattr(webui.sd_model, "forge_objects"):
        pytest.skip("reForge and Forge do nothing with hypernetworks")
    before = generated(PROMPT)
    if fails:
        with pytest.raises(RuntimeError, match="in the middle"), WebuiHost(texts).borrow() as model:
            learn(model)
            raise RuntimeError("in the middle")
    else:
        with WebuiHost(texts).borrow() as model:
            learn(model)
    assert torch.equal(generated(PROMPT), before)
