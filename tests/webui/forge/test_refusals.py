"""What cannot be worked with in Forge is refused with one line, against a stand-in of its modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

import torch
from safetensors.torch import save_file

from embedding_estimate.errors import ModelError
from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.model.host import Family


def test_without_a_checkpoint_a_job_says_what_to_do(shared: Any, put: Callable[[Family], Any]) -> None:
    with pytest.raises(ModelError, match=r"^no checkpoint is chosen: choose one at the top of the page$"):
        WebuiHost().borrow().__enter__()


WAY_OUT = "choose an SD1, SD2 or SDXL checkpoint"
PICTURE = "checkpoint is conditioned on a picture too: choose the plain checkpoint"


@pytest.mark.parametrize(
    ("family", "channels", "reason"),
    [
        ("Flux", 4, f"the WebUI takes it for Flux, which is not supported: {WAY_OUT}"),
        ("SD35", 4, f"the WebUI takes it for SD35, which is not supported: {WAY_OUT}"),
        ("Mugen", 4, f"the WebUI takes it for Mugen, which is not supported: {WAY_OUT}"),
        ("SDXLRefiner", 4, "a refiner has one text encoder only: choose the base checkpoint"),
        ("SD15", 9, f"an inpainting {PICTURE}"),
        ("SD20", 5, f"a depth {PICTURE}"),
        ("SDXL_instructpix2pix", 8, f"an instruct-pix2pix {PICTURE}"),
        ("SDXL", 8, f"an instruct-pix2pix {PICTURE}"),  # in Neo
    ],
)
def test_another_family_is_refused_by_name_before_its_weights_are_read(
    put: Callable[[Family], Any], tmp_path: Path, family: str, channels: int, reason: str
) -> None:
    described = put("sd1")
    save_file({f"model.diffusion_model.family.{family}": torch.zeros(channels)}, described.filename)
    with pytest.raises(ModelError) as refused, WebuiHost().borrow():
        pass
    assert str(refused.value) == f"{described.name_for_extra}: {reason}"


@pytest.mark.parametrize("webui_kind", ["Neo"], indirect=True)
def test_neo_is_not_advised_to_load_what_it_does_not_know(put: Callable[[Family], Any]) -> None:
    described = put("sd1")
    save_file({"model.diffusion_model.family.Flux": torch.zeros(4)}, described.filename)
    with pytest.raises(ModelError, match=r"which is not supported: choose an SD1 or SDXL checkpoint$"):
        WebuiHost().borrow().__enter__()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("text_model.weight", f"it is no checkpoint that the WebUI knows: {WAY_OUT}"),
        (
            "model.diffusion_model.a_part_without_the_other",
            f"it is no checkpoint that the WebUI knows: {WAY_OUT}",
        ),
        (
            "model.diffusion_model.weight.quant_state.bitsandbytes__nf4",
            "NF4 and FP4 weights pass no gradient back: choose a checkpoint in fp16",
        ),
    ],
)
def test_a_file_that_is_no_checkpoint_or_a_quantised_one_is_refused(
    put: Callable[[Family], Any], key: str, reason: str
) -> None:
    described = put("sd1")
    save_file({key: torch.zeros(4)}, described.filename)
    with pytest.raises(ModelError) as refused, WebuiHost().borrow():
        pass
    assert str(refused.value) == f"{described.name_for_extra}: {reason}"


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x05\0\0\0\0\0\0\0{abc}", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", "half of it"],
)
def test_a_damaged_file_is_one_line(put: Callable[[Family], Any], content: bytes | str) -> None:
    described = put("sd1")
    file = Path(described.filename)
    whole = file.read_bytes()
    file.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) - 2])
    with pytest.raises(ModelError) as refused, WebuiHost().borrow():
        pass
    said = str(refused.value)
    assert said.startswith(f"{described.name_for_extra}: truncated or not a safetensors file (")
    assert said.endswith("); download it again") and "\n" not in said


def test_a_file_that_is_gone_is_one_line(put: Callable[[Family], Any]) -> None:
    described = put("sd1")
    Path(described.filename).unlink()
    with pytest.raises(ModelError) as refused, WebuiHost().borrow():
        pass
    said = str(refused.value)
    assert said.startswith(f"{described.name_for_extra}: cannot be read (") and "No such file" in said
    assert said.endswith("): choose another one")


@pytest.fixture
def text_encoder(put: Callable[[Family], Any], tmp_path: Path) -> Path:
    """A file that is chosen on the page, beside SD1's checkpoint."""
    from modules import sd_models

    put("sd1")
    path = tmp_path / "te-other.safetensors"
    save_file({"text_model.encoder.layers.0.layer_norm1.bias": torch.zeros(4)}, path)
    sd_models.model_data.forge_loading_parameters["additional_modules"] = [str(path)]
    return path


def test_a_text_encoder_of_its_own_file_is_part_of_what_an_embedding_was_made_with(text_encoder: Path) -> None:
    from modules import shared

    with WebuiHost().borrow() as model:
        described = shared.sd_model.sd_checkpoint_info
        assert model.info.name == f"{described.name_for_extra}+te-other"
        assert model.info.hash == f"{described.shorthash}+te-other"


@pytest.mark.parametrize("key", ["decoder.conv_in.weight", "encoder.block.0.layer.0.SelfAttention.k.weight"])
def test_a_vae_and_a_text_encoder_of_other_families_are_not(text_encoder: Path, key: str) -> None:
    from modules import shared

    save_file({key: torch.zeros(4)}, text_encoder)
    with WebuiHost().borrow() as model:
        assert model.info.name == shared.sd_model.sd_checkpoint_info.name_for_extra


def test_a_text_encoder_whose_file_is_gone_since_stops_no_image(text_encoder: Path) -> None:
    from modules import shared

    from embedding_estimate.hosts.webui.kind import kind

    with WebuiHost().borrow():
        pass
    text_encoder.unlink()
    name = shared.sd_model.sd_checkpoint_info.name_for_extra
    assert kind().checkpoint(shared.sd_model)[0] == name


def test_a_damaged_text_encoder_is_named(text_encoder: Path) -> None:
    """The WebUI says that it does not recognise the checkpoint."""
    text_encoder.write_bytes(text_encoder.read_bytes()[:-2])
    with pytest.raises(ModelError, match=r"^te-other\.safetensors: truncated or not a safetensors file \("):
        WebuiHost().borrow().__enter__()


def test_a_text_encoder_of_another_shape_is_one_line_that_names_it(
    text_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules import sd_models

    described = sd_models.model_data.forge_loading_parameters["checkpoint_info"]

    def fails() -> Any:
        raise RuntimeError("Error(s) in loading state_dict for CLIP:\n\tsize mismatch for a\n" + "\tand for b\n" * 90)

    monkeypatch.setitem(sd_models.loaders, described.filename, fails)
    with pytest.raises(ModelError) as refused, WebuiHost().borrow():
        pass
    said = str(refused.value)
    beginning = f"{described.name_for_extra}, te-other.safetensors: the WebUI cannot load it (Error(s) in loading"
    assert said.startswith(f"{beginning} state_dict for CLIP: size mismatch for a and for b ") and "\n" not in said
    assert said.endswith(" ...)") and len(said) < 400


def test_memory_that_runs_out_while_loading_is_told_as_that(
    put: Callable[[Family], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules import sd_models

    described = put("sd1")

    def fails() -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(sd_models.loaders, described.filename, fails)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        WebuiHost().borrow().__enter__()


def test_gguf_is_refused_by_name(put: Callable[[Family], Any]) -> None:
    described = put("sd1")
    described.filename = "somewhere/flux.gguf"
    with pytest.raises(ModelError, match=r"GGUF weights pass no gradient back: choose a safetensors checkpoint$"):
        WebuiHost().borrow().__enter__()


def test_low_bits_that_the_page_asks_for_are_refused(chosen: Any) -> None:
    from modules import sd_models

    sd_models.model_data.forge_loading_parameters["unet_storage_dtype"] = "nf4"
    with pytest.raises(ModelError) as refused, WebuiHost().borrow():
        pass
    assert str(refused.value) == "'Diffusion in Low Bits' is nf4, which passes no gradient back: choose Automatic"


def test_a_loaded_model_that_predicts_something_else_is_refused(loaded: Any) -> None:
    """As SDXL's kin with rectified flow, which no key in the file tells."""
    loaded.sd_model.forge_objects.unet.model.predictor.prediction_type = "const"
    name = loaded.sd_model.sd_checkpoint_info.name_for_extra
    with pytest.raises(ModelError) as refused, WebuiHost().borrow():
        pass
    assert str(refused.value) == f"{name}: it predicts const and no noise (epsilon) or velocity (v): {WAY_OUT}"


def test_a_checkpoint_that_the_webui_cannot_load_is_one_line(
    put: Callable[[Family], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules import sd_models

    described = put("sd1")

    def fails() -> Any:
        raise AssertionError("You do not have CLIP state dict!")

    monkeypatch.setitem(sd_models.loaders, described.filename, fails)
    with pytest.raises(ModelError) as refused, WebuiHost().borrow():
        pass
    said = f"{described.name_for_extra}: the WebUI cannot load it (You do not have CLIP state dict!)"
    assert str(refused.value) == said


@pytest.mark.parametrize("by", ["job", "image"])
def test_a_checkpoint_is_loaded_again_after_another_has_failed(
    put: Callable[[Family], Any], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Forge unloads the first one for the second, and then takes it for loaded."""
    from forge_model import choose
    from modules import sd_models

    def fails() -> Any:
        raise ValueError("unknown weights")

    first = put("sd1")
    with WebuiHost().borrow():
        pass
    second = put("sdxl")
    monkeypatch.setitem(sd_models.loaders, second.filename, fails)
    with pytest.raises(ModelError, match="unknown weights"), WebuiHost().borrow():
        pass
    choose(first)
    if by == "image":
        assert sd_models.forge_model_reload()[0].sd_checkpoint_info is first
    with WebuiHost().borrow() as model:
        assert model.info.family == "sd1"
