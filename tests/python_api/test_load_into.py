"""Embeddings in pipelines: what the prompts of a pipeline make of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hosts.contract import random_states
from shaking import shaken
from suites import quick_first
from torch import Tensor

from embedding_estimate import Embedding, estimate, load, load_into
from embedding_estimate.demo.random_models import Family
from embedding_estimate.errors import EmbeddingError, ModelError, NameTaken
from embedding_estimate.files.embedding import write
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.storage import phrases
from embedding_estimate.teaching.words import Word

Load = Callable[..., Any]
WIDTHS: Mapping[Family, Mapping[str, int]] = {
    "sd1": {"clip_l": 32},
    "sd2": {"clip_h": 32},
    "sdxl": {"clip_l": 32, "clip_g": 48},
}
SIZE = 64


def embedding(family: Family, tokens: int, name: str = "red-disc") -> Embedding:
    generator = torch.Generator().manual_seed(shaken(0))
    vectors = {key: torch.randn(tokens, width, generator=generator) for key, width in WIDTHS[family].items()}
    return Embedding(name, vectors)


def encoded(pipeline: Any, prompt: str) -> tuple[Tensor, Tensor | None]:
    """The hidden states that the pipeline hands to its U-Net, and SDXL's pooled ones."""
    with torch.no_grad():
        hidden, _, *pooled = pipeline.encode_prompt(
            prompt=prompt, device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    return hidden, pooled[0] if pooled else None


@pytest.mark.parametrize(
    ("family", "tokens", "name"),
    quick_first(
        3,
        [
            *(("sd1", 1, "<disc>"), ("sd2", 3, "red-disc"), ("sdxl", 12, "Red_Disc")),
            *itertools.product(WIDTHS, (1, 3, 12), ("red-disc", "Red_Disc", "<disc>")),
        ],
    ),
)
def test_a_prompt_is_encoded_as_by_our_own_host(load_pipeline: Load, family: Family, tokens: int, name: str) -> None:
    pipeline = load_pipeline(family)
    vectors = embedding(family, tokens).vectors
    with StandaloneHost.of_pipeline(pipeline).borrow() as model:
        expected = model.encode_vectors(vectors, ["a photo of {}, blue"], width=SIZE, height=SIZE)[0]
    assert load_into(pipeline, embedding(family, tokens), name) == name
    hidden, pooled = encoded(pipeline, f"a photo of {name}, blue")
    torch.testing.assert_close(hidden, expected.context, rtol=1e-5, atol=1e-5)
    if pooled is not None:
        assert expected.vector is not None
        torch.testing.assert_close(pooled, expected.vector[:, :-6], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_image_is_that_of_the_vectors(load_pipeline: Load) -> None:
    pipeline = load_pipeline("sdxl")
    one = embedding("sdxl", 2)
    with StandaloneHost.of_pipeline(pipeline).borrow() as model:
        told = model.encode_vectors(one.vectors, ["a {}"], width=SIZE, height=SIZE)[0]
    assert told.vector is not None
    options: dict[str, Any] = {"num_inference_steps": 2, "output_type": "pt", "guidance_scale": 1.0}
    embeds = {"prompt_embeds": told.context, "pooled_prompt_embeds": told.vector[:, :-6]}
    expected = pipeline(**embeds, generator=torch.manual_seed(0), **options).images
    before = pipeline("a red-disc", generator=torch.manual_seed(0), **options).images
    load_into(pipeline, one)
    ours = pipeline("a red-disc", generator=torch.manual_seed(0), **options).images
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert (before - ours).abs().max() > 1e-3


def test_other_prompts_stay_as_they_were(load_pipeline: Load) -> None:
    pipeline = load_pipeline("sdxl")
    prompts = ("a photo of a red disc", "red-discount", "a red-dish")
    before = [encoded(pipeline, prompt) for prompt in prompts]
    states = random_states()
    load_into(pipeline, embedding("sdxl", 3))
    assert random_states() == states
    for prompt, (hidden, pooled) in zip(prompts, before, strict=True):
        now, pooled_now = encoded(pipeline, prompt)
        torch.testing.assert_close(now, hidden)
        torch.testing.assert_close(pooled_now, pooled)


@pytest.mark.parametrize("dtype", quick_first(1, [torch.float16, torch.bfloat16]), ids=str)
def test_precision_modes_and_gradients_stay(load_pipeline: Load, dtype: torch.dtype) -> None:
    pipeline = load_pipeline("sdxl", dtype)
    pipeline.text_encoder.requires_grad_(False)
    pipeline.text_encoder_2.train()
    one = embedding("sdxl", 2)
    load_into(pipeline, one)
    for key, encoder in (("clip_l", pipeline.text_encoder), ("clip_g", pipeline.text_encoder_2)):
        assert {(p.dtype, p.device) for p in encoder.parameters()} == {(dtype, torch.device("cpu"))}
        assert {p.requires_grad for p in encoder.parameters()} == {key == "clip_g"}
        assert {part.training for part in encoder.modules()} == {key == "clip_g"}
        assert torch.equal(encoder.get_input_embeddings().weight[-2:], one.vectors[key].to(dtype))


def test_diffusers_takes_it_out_again(load_pipeline: Load) -> None:
    pipeline = load_pipeline("sd1")
    before, rows = encoded(pipeline, "a red-disc")[0], len(pipeline.text_encoder.get_input_embeddings().weight)
    load_into(pipeline, embedding("sd1", 2))
    assert not torch.equal(encoded(pipeline, "a red-disc")[0], before)
    pipeline.unload_textual_inversion(["red-disc", "red-disc_1"])
    torch.testing.assert_close(encoded(pipeline, "a red-disc")[0], before)
    assert len(pipeline.text_encoder.get_input_embeddings().weight) == rows


def test_what_it_holds_is_read_from_its_prompts_by_an_estimate(load_pipeline: Load) -> None:
    pipeline = load_pipeline("sdxl")
    load_into(pipeline, embedding("sdxl", 3), "Red-Disc")
    result = estimate("Red-Disc", pipeline, measure="Nothing", progress=False, name="again")
    assert result.stopped == "exact"
    for key, vectors in embedding("sdxl", 3).vectors.items():
        assert torch.equal(result.vectors[key], vectors)


@pytest.fixture
def sources(tmp_path: Path) -> Callable[[Embedding], list[Any]]:
    def made(one: Embedding) -> list[Any]:
        path = tmp_path / f"{one.name}.safetensors"
        write(one, path)
        return [one, path, str(path)]

    return made


@pytest.mark.parametrize("number", quick_first(1, [1, 0, 2]))
def test_an_embedding_or_its_file_is_taken(
    load_pipeline: Load, sources: Callable[[Embedding], list[Any]], number: int
) -> None:
    pipeline = load_pipeline("sd1")
    one = embedding("sd1", 2)
    assert load_into(pipeline, sources(one)[number]) == "red-disc"
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[-2:], one.vectors["clip_l"])


@pytest.mark.slow
def test_words_are_put_in_each_under_its_name_and_weights_are_told(load_pipeline: Load, tmp_path: Path) -> None:
    pipeline = load_pipeline("sd1")
    options: dict[str, Any] = {"measure": "Nothing", "progress": False, "part": "Transformer", "learning_steps": 1}
    result = estimate("(red:1.5) circle", pipeline, words="One per weight", **options)
    with pytest.warns(
        UserWarning, match=r"made to be typed as \(disc-a:1.5\), and pipelines of diffusers read no weig"
    ):
        assert load_into(pipeline, result, "disc") == "disc-a disc-b"
    rows = pipeline.text_encoder.get_input_embeddings().weight[-2:]
    assert torch.equal(rows, result.vectors["clip_l"])

    second = result.save("spot", tmp_path)[1]
    assert load_into(pipeline, second) == "spot-b"
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[-1], result.vectors["clip_l"][1])


def test_files_of_other_tools_are_read(tmp_path: Path) -> None:
    vectors = torch.randn(2, 768)
    torch.save({"<disc>": vectors}, tmp_path / "learned.bin")
    read = load(str(tmp_path / "learned.bin"))
    assert (read.name, read.tokens) == ("learned", 2)
    assert torch.equal(next(iter(read.vectors.values())), vectors)
    with pytest.raises(EmbeddingError, match=r"missing\.pt"):
        load(tmp_path / "missing.pt")


@pytest.mark.parametrize(
    ("before", "token", "line"),
    quick_first(
        2,
        [
            (("red-disc",), "red-disc", "red-disc: the tokenizer has this token already; choose another token"),
            ((), "Circle", "Circle: an ordinary word, which the embedding would replace; choose a made-up token"),
            ((), "circle", "circle: an ordinary word, which the embedding would replace; choose a made-up token"),
            (("red-disc_1",), "red-disc", "red-disc_1: the tokenizer has this token already"),
            (("red-disc",), "red-disc_7", "red-disc_7: diffusers reads it as a part of another embedding"),
            (("disc-it",), "red-disc-it", "red-disc-it: diffusers would confuse it with disc-it, because one"),
            (("red-disc-it",), "disc-it", "disc-it: diffusers would confuse it with red-disc-it"),
        ],
    ),
)
def test_a_token_that_is_taken_is_refused(load_pipeline: Load, before: tuple[str, ...], token: str, line: str) -> None:
    pipeline = load_pipeline("sdxl")
    for name in before:
        load_into(pipeline, embedding("sdxl", 2), name)
    vocabularies = [tokenizer.get_vocab() for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)]
    with pytest.raises(NameTaken) as told:
        load_into(pipeline, embedding("sdxl", 2), token)
    assert line in str(told.value) and "\n" not in str(told.value)
    assert [tokenizer.get_vocab() for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)] == vocabularies
    assert len(pipeline.text_encoder.get_input_embeddings().weight) == len(vocabularies[0])


def test_where_one_word_is_taken_none_is_added(load_pipeline: Load) -> None:
    pipeline = load_pipeline("sd1")
    words, vectors = [Word(1.5, (0,)), Word(0.6, (1,))], embedding("sd1", 2).vectors
    both = Embedding("disc", vectors, phrases.record_of("disc", words, vectors))
    load_into(pipeline, embedding("sd1", 1, "disc-b"))
    known = pipeline.tokenizer.get_vocab()
    with pytest.raises(NameTaken, match="disc-b"):
        load_into(pipeline, both)
    assert pipeline.tokenizer.get_vocab() == known


def test_a_token_that_one_tokenizer_has_is_taken(load_pipeline: Load) -> None:
    pipeline = load_pipeline("sdxl")
    pipeline.tokenizer_2.add_tokens(["red-disc_1"])
    with pytest.raises(NameTaken, match="red-disc_1: the tokenizer has this token already"):
        load_into(pipeline, embedding("sdxl", 2))
    assert "red-disc" not in pipeline.tokenizer.get_vocab()


@pytest.mark.parametrize("token", quick_first(1, [" disc", "", " "]))
def test_a_token_that_cannot_be_typed_is_refused(copy_pipeline: Load, token: str) -> None:
    with pytest.raises(EmbeddingError, match="a prompt calls an embedding by its token"):
        load_into(copy_pipeline("sd1"), embedding("sd1", 1), token)


def test_an_embedding_of_another_kind_of_model_is_refused(copy_pipeline: Load) -> None:
    with pytest.raises(EmbeddingError, match="use an embedding made for this kind of model"):
        load_into(copy_pipeline("sdxl"), embedding("sd1", 1))


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
def test_a_pipeline_without_its_text_half_is_refused(copy_pipeline: Load, part: str) -> None:
    pipeline = copy_pipeline("sd1")
    setattr(pipeline, part, None)
    with pytest.raises(ModelError, match="StableDiffusionPipeline: has no text encoder or no tokenizer"):
        load_into(pipeline, embedding("sd1", 1))


def test_weights_that_are_offloaded_are_refused(copy_pipeline: Load) -> None:
    pipeline = copy_pipeline("sd1")
    pipeline.text_encoder.to("meta")
    with pytest.raises(ModelError, match="offloaded; call remove_all_hooks"):
        load_into(pipeline, embedding("sd1", 1))
