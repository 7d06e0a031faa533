"""Prompts to conditioning: against 1.10.1's own numbers, against finite differences, and names against vectors."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from hosts.standalone import tiny
from shaking import shaken
from transformers import CLIPTokenizer

from embedding_estimate.errors import EmbeddingError, SettingsError
from embedding_estimate.hosts.standalone.conditioner import Conditioner

DATA = json.loads((Path(__file__).parents[2] / "data/a1111_1_10_1_conditioning.json").read_text("utf-8"))
WIDTHS = {"sd1": {"clip_l": 16}, "sd2": {"clip_h": 16}, "sdxl": {"clip_l": 16, "clip_g": 24}}
SIZE: dict[str, Any] = {"width": 640, "height": 512}
GOLDEN = [(key, list(rows)) for key, rows in groupby(DATA["rows"], key=lambda row: tuple(row[:3]))]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return tiny.tokenizer()


@pytest.mark.parametrize(("setup", "rows"), GOLDEN, ids=["-".join(map(str, setup)) for setup, _ in GOLDEN])
def test_golden(setup: tuple[str, str, int], rows: list[Any], tokenizer: CLIPTokenizer) -> None:
    family, emphasis, clip_skip = setup
    embeddings = {
        name: tiny.vectors(WIDTHS[family], count, seed, golden=True)
        for seed, (name, count) in enumerate(DATA["embeddings"].items())
    }
    conditioner = Conditioner(
        tiny.loaded(family, tokenizer, golden=True), emphasis=emphasis, clip_skip=clip_skip, embeddings=embeddings
    )
    for *_, negative, number, expected in rows:
        stages = conditioner.encode(DATA["prompts"][number], evaluations=5, negative=negative, **SIZE)
        assert [stage.until for stage in stages] == [until for until, _ in expected]
        for stage, (_, parts) in zip(stages, expected, strict=True):
            assert len(stage.parts) == len(parts)
            for (conditioning, weight), (w, length, context, vector) in zip(stage.parts, parts, strict=True):
                assert weight == w and conditioning.context.shape[1] == length
                assert tiny.agree(tiny.projected(conditioning.context), context)
                assert (conditioning.vector is None) == (vector is None)
                if conditioning.vector is not None:
                    assert tiny.agree(tiny.projected(conditioning.vector), vector)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_what_tokens_stand_for(family: str, tokenizer: CLIPTokenizer) -> None:
    conditioner = Conditioner(tiny.loaded(family, tokenizer))
    for key in WIDTHS[family]:
        pieces = [conditioner.token_text(key, token) for token in conditioner.token_ids("Red t-shirts, caf\u00e9 1")]
        assert pieces == ["red", "t", "-", "shirts", ",", "caf\u00e9", "1"]
        assert conditioner.token_text(key, 736) == "red" and conditioner.token_text(key, 0) == "!..."
        assert conditioner.token_text(key, 49_407) == "<|endoftext|>"


TEMPLATES = [
    "{}",
    "a photo of {}, at night",
    "({}:1.2)",
    "a ({} b:0.7) [{}]",
    "w " * 72 + "{} x",
    "w " * 75 + "{}",
    "w " * 65 + ", b {} c d e f g h",
    "a BREAK {}",
    "a tinyone {} b, tinyone",
]


@pytest.mark.parametrize("family", WIDTHS)
@pytest.mark.parametrize("template", TEMPLATES, ids=range(len(TEMPLATES)))
def test_a_typed_name_and_live_vectors_are_the_same_bits(family: str, template: str, tokenizer: CLIPTokenizer) -> None:
    live = tiny.vectors(WIDTHS[family], 4, seed=8)
    conditioner = Conditioner(
        tiny.loaded(family, tokenizer),
        embeddings={"fourvec": live, "tinyone": tiny.vectors(WIDTHS[family], 1, seed=9)},
    )
    [stage] = conditioner.encode(template.replace("{}", "fourvec"), evaluations=1, **SIZE)
    [(typed, _)] = stage.parts
    [given] = conditioner.encode_vectors(live, [template], **SIZE)
    assert torch.equal(given.context, typed.context)
    assert (given.vector is None) == (typed.vector is None)
    if given.vector is not None and typed.vector is not None:
        assert torch.equal(given.vector, typed.vector)


def test_the_slot_splits_what_it_is_glued_to_and_braces_elsewhere_are_text(tokenizer: CLIPTokenizer) -> None:
    conditioner = Conditioner(tiny.loaded("sd1", tokenizer))
    live = tiny.vectors(WIDTHS["sd1"], 2, seed=8)
    glued, apart = (
        conditioner.encode_vectors(live, [template], **SIZE)[0].context for template in ("red{}hat", "red {} hat")
    )  # each alone: in one batch their places might round otherwise
    assert torch.equal(glued, apart)
    [stage] = conditioner.encode("red {} hat", evaluations=1, **SIZE)
    assert not torch.equal(stage.parts[0][0].context, apart)
    assert conditioner.token_ids("{}") == tokenizer("{}", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", WIDTHS)
def test_gradient(family: str, tokenizer: CLIPTokenizer) -> None:
    """Against central differences along random directions, in double precision."""
    loaded = tiny.loaded(family, tokenizer, torch.float64)
    conditioner = Conditioner(loaded)
    live = {key: value.double() for key, value in tiny.vectors(WIDTHS[family], 3, seed=4).items()}

    def product(vectors: dict[str, torch.Tensor]) -> torch.Tensor:
        [conditioning] = conditioner.encode_vectors(vectors, ["a ({}:1.3), b"], **SIZE)
        generator = torch.Generator().manual_seed(shaken(0))
        return sum(
            (part * torch.randn(part.shape, generator=generator, dtype=torch.float64)).sum()
            for part in (conditioning.context, conditioning.vector)
            if part is not None
        )

    leaves = {key: value.clone().requires_grad_() for key, value in live.items()}
    product(leaves).backward()
    for key in live:
        direction, step = tiny.vectors(WIDTHS[family], 3, seed=5)[key].double(), 1e-5
        ends = [product(live | {key: live[key] + sign * step * direction}) for sign in (1, -1)]
        measured = float((ends[0] - ends[1]).detach() / (2 * step))
        assert float((leaves[key].grad * direction).sum()) == pytest.approx(measured, rel=1e-6)


def test_the_model_is_left_as_it_was(tokenizer: CLIPTokenizer) -> None:
    loaded = tiny.loaded("sd1", tokenizer)
    conditioner = Conditioner(loaded, clip_skip=2)
    model = loaded.text_encoders["clip_l"].model
    layers = conditioner.encoders["clip_l"].core.encoder.layers
    with pytest.raises(RuntimeError):
        conditioner.encode_vectors({"clip_l": torch.full((2, 16), 1.0, device="meta")}, ["{}"], **SIZE)
    assert conditioner.encoders["clip_l"].core.encoder.layers is layers and len(layers) == tiny.LAYERS
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_layers_that_are_not_needed_do_not_run(tokenizer: CLIPTokenizer) -> None:
    loaded = tiny.loaded("sd1", tokenizer)
    ran = []
    for number, layer in enumerate(Conditioner(loaded).encoders["clip_l"].core.encoder.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    Conditioner(loaded, clip_skip=3).encode("a", evaluations=1, **SIZE)
    assert ran == [0]


def test_templates_of_as_many_chunks_are_one_batch(tokenizer: CLIPTokenizer) -> None:
    loaded = tiny.loaded("sd1", tokenizer)
    batches: list[int] = []
    model = loaded.text_encoders["clip_l"].model
    model.get_input_embeddings().register_forward_hook(lambda _module, args, _rows: batches.append(len(args[0])))
    conditioner, live = Conditioner(loaded), tiny.vectors(WIDTHS["sd1"], 2, seed=8)
    conditioner.encode_vectors(live, ["{}", "a {}", "{}"], **SIZE)
    assert batches == [2]  # the same one is encoded once
    conditioner.encode_vectors(live, ["{}", "a ({}:1.2)"], **SIZE)
    assert batches == [2, 2]
    conditioner.encode_vectors(live, ["{}", "a " * 80 + "({}:1.2)", "({}:0.9)"], **SIZE)
    assert batches == [2, 2, 2, 1, 1]  # two chunks go one after the other


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half(dtype: torch.dtype, tokenizer: CLIPTokenizer) -> None:
    conditioner = Conditioner(tiny.loaded("sdxl", tokenizer, dtype))
    live = {key: value.requires_grad_() for key, value in tiny.vectors(WIDTHS["sdxl"], 2, seed=1).items()}
    [conditioning] = conditioner.encode_vectors(live, ["({}:1.2)"], **SIZE)
    assert conditioning.context.dtype == dtype
    conditioning.context.float().square().mean().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in live.values())


def test_sdxl_vector_ends_in_its_sizes_and_an_empty_negative_is_zero(tokenizer: CLIPTokenizer) -> None:
    conditioner = Conditioner(tiny.loaded("sdxl", tokenizer))
    for negative in (False, True):
        [stage] = conditioner.encode("", evaluations=3, negative=negative, **SIZE)
        [(conditioning, _)] = stage.parts
        assert conditioning.vector is not None
        assert conditioning.vector.shape == (1, 20 + 6)
        assert conditioning.vector[0, 20:].tolist() == [512, 640, 0, 0, 512, 640]
        assert bool(conditioning.context.any()) == bool(conditioning.vector[0, :20].any()) == (not negative)


def test_token_vectors_are_the_table_rows_with_embeddings_in_place(tokenizer: CLIPTokenizer) -> None:
    live = tiny.vectors(WIDTHS["sdxl"], 2, seed=1)
    conditioner = Conditioner(tiny.loaded("sdxl", tokenizer), embeddings={"sks": live})
    found, table = conditioner.token_vectors("a (sks:1.3) BREAK cat"), conditioner.vocabulary()
    a, cat = conditioner.token_ids("a cat")
    for key, value in found.items():
        assert torch.equal(value, torch.stack([table[key][a], *live[key], table[key][cat]]))
    assert {key: len(value) for key, value in conditioner.token_vectors("").items()} == {"clip_l": 0, "clip_g": 0}
    assert len(conditioner.token_vectors("w " * 200)["clip_l"]) == 200


def test_an_added_embedding_is_read_by_its_name(tokenizer: CLIPTokenizer) -> None:
    conditioner = Conditioner(tiny.loaded("sd1", tokenizer))
    assert conditioner.embedding_names() == [] and len(conditioner.token_vectors("a hat")["clip_l"]) == 2
    vectors = tiny.vectors(WIDTHS["sd1"], 3, seed=1)
    conditioner.add_embedding("hat", vectors)
    assert conditioner.embedding_names() == ["hat"]
    assert torch.equal(conditioner.token_vectors("a hat")["clip_l"][1:], vectors["clip_l"])


def test_refusals_name_the_way_out(tokenizer: CLIPTokenizer) -> None:
    loaded = tiny.loaded("sdxl", tokenizer)
    with pytest.raises(SettingsError, match=r"clip_skip=9: .* 1 to 4"):
        Conditioner(loaded, clip_skip=9)
    with pytest.raises(EmbeddingError, match="no vectors for clip_g"):
        Conditioner(loaded, embeddings={"a": tiny.vectors({"clip_l": 16}, 1, 0)})
    with pytest.raises(EmbeddingError, match=r"clip_l is 1x8, .* 16 wide"):
        Conditioner(loaded).encode_vectors(tiny.vectors({"clip_l": 8, "clip_g": 24}, 1, 0), ["{}"], **SIZE)


@pytest.mark.slow
def test_five_thousand_words(tokenizer: CLIPTokenizer) -> None:
    conditioner = Conditioner(tiny.loaded("sd1", tokenizer))
    [stage] = conditioner.encode("(word:1.1) " * 5000, evaluations=20, **SIZE)
    assert stage.parts[0][0].context.shape == (1, 67 * 77, 16)
