"""One word for each weight: which words a prompt has, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from suites import quick_first
from toy import ToyHost

from embedding_estimate.errors import NameTaken, SettingsError
from embedding_estimate.estimation.listener import NOBODY, Listener
from embedding_estimate.estimation.trainer import Estimate, estimate
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.settings import Settings
from embedding_estimate.storage.phrases import parts_of
from embedding_estimate.teaching.teacher import Task, Teacher
from embedding_estimate.teaching.words import Word, dealt, grouped, plans

NO = False
COMMA = True


def run(host: ToyHost, listener: Listener = NOBODY, **values: Any) -> Estimate:
    return estimate(made(**values), host, listener)


def made(**values: Any) -> Settings:
    asked = {"text": "(red:1.5) circle", "words": "One per weight", "name": "it", "tokens": 4}
    quick = {"part": "U-Net", "templates": "{}", "steps": 6, "learning_steps": 60, "measure": "Nothing"}
    return Settings(**{**asked, **quick, **values})


@pytest.mark.parametrize(
    ("weights", "separators", "groups"),
    [
        # (bad quality:1.4), (worst hands:1.2), blurry
        (
            [1.4, 1.4, 1, 1.2, 1.2, 1, 1],
            [NO, NO, COMMA, NO, NO, COMMA, NO],
            [(1.4, (0, 1, 2)), (1.2, (3, 4)), (1, (5, 6))],
        ),
        # a, (red:1.4), b
        ([1, 1, 1.4, 1, 1], [NO, COMMA, NO, COMMA, NO], [(1, (0, 1)), (1.4, (2,)), (1, (3, 4))]),
        # (red:1.4), (blue:1.4)
        ([1.4, 1, 1.4], [NO, COMMA, NO], [(1.4, (0, 1, 2))]),
        # , (red:1.4)
        ([1, 1.4], [COMMA, NO], [(1.4, (0, 1))]),
        # (a b:1.2) (c:1.25)
        ([1.2, 1.2, 1.25], [NO] * 3, [(1.22, (0, 1, 2))]),
        # 1.0 to 1.15 in steps of 0.05 are not one weight
        ([1, 1.05, 1.1, 1.15], [NO] * 4, [(1.02, (0, 1)), (1.12, (2, 3))]),
        # ((red)) [blue]
        ([1.1 * 1.1, 1 / 1.1], [NO] * 2, [(1.21, (0,)), (0.91, (1,))]),
        ([1, 1], [COMMA] * 2, [(1, (0, 1))]),
        ([1.2, 1], [COMMA] * 2, [(1.2, (0,)), (1, (1,))]),
    ],
)
def test_tokens_are_grouped_by_weight_in_their_order(
    weights: list[float], separators: list[bool], groups: list[tuple[float, tuple[int, ...]]]
) -> None:
    assert grouped(weights, separators, most=9) == groups


def test_where_words_are_few_stretches_of_one_weight_are_joined_by_the_shortest_way() -> None:
    # on a (red:1.5) background a black diamond (outlined:0.6) blurry
    weights, separators = [1, 1, 1.5, 1, 1, 1, 1, 0.6, 1], [NO] * 9
    stretches = [(1, (0, 1)), (1.5, (2,)), (1, (3, 4, 5, 6)), (0.6, (7,)), (1, (8,))]
    assert grouped(weights, separators, 5) == stretches
    assert grouped(weights, separators, 4) == [*stretches[:2], (1, (3, 4, 5, 6, 8)), (0.6, (7,))]
    fewest = [(1.5, (2,)), (1, (0, 1, 3, 4, 5, 6, 8)), (0.6, (7,))]
    assert grouped(weights, separators, 3) == grouped(weights, separators, 1) == fewest


@pytest.mark.parametrize(
    ("vectors", "shares"),
    [
        (5, [1, 1, 1, 1, 1]),
        (6, [1, 1, 2, 1, 1]),
        (7, [1, 1, 2, 2, 1]),  # of two tokens each, the one of a weight goes first
        (8, [1, 1, 3, 2, 1]),
        (10, [2, 1, 4, 2, 1]),
        (11, [2, 1, 5, 2, 1]),  # the comma comes last
        (12, [2, 1, 5, 2, 2]),
    ],
)
def test_vectors_are_dealt_out_by_the_tokens(vectors: int, shares: list[int]) -> None:
    groups = [(1, (0, 1)), (1.5, (2,)), (1, (3, 4, 5, 6, 7)), (0.6, (8, 9)), (1, (10, 11))]
    assert dealt(vectors, groups, [place in (4, 10) for place in range(12)]) == shares


def test_a_word_starts_from_the_vectors_of_its_tokens(toy_host: ToyHost) -> None:
    text = "(red:1.5) circle (blue:1.5) star"
    [words] = plans(made(text=text, tokens=3), toy_host.model)
    assert words == (Word(1.5, (0, 2)), Word(1.0, (3,)))
    first = run(toy_host, text=text, tokens=3, learning_steps=1).embedding.vectors["clip_l"]
    own = toy_host.model.token_vectors(text)["clip_l"][[0, 2, 3]].float()
    assert first.shape == own.shape and float((first - own).abs().max()) < float(own.abs().max())


def test_a_teacher_types_each_word_with_its_weight(toy_host: ToyHost) -> None:
    model = toy_host.model
    task = Task.of(made(), model, [Word(1.5, (0, 1)), Word(1.0, (2,))])
    assert (task.phrase, task.typed_weight) == ("({0:2}:1.5) {2:3}", 1.0)
    teacher = Teacher(model, task)
    vectors = model.token_vectors("red circle star")
    found = teacher.encode_vectors(vectors, "blue {}")
    [stage] = model.encode("blue (red circle:1.5) star", evaluations=1, width=32, height=32)
    torch.testing.assert_close(found.context, stage.parts[0][0].context)
    bare = teacher.typed(1.0).encode_vectors(vectors, "blue {}")
    [stage] = model.encode("blue red circle star", evaluations=1, width=32, height=32)
    torch.testing.assert_close(bare.context, stage.parts[0][0].context)


def test_with_all_tokens_the_words_are_the_prompt_and_nothing_is_trained(toy_host: ToyHost) -> None:
    result = run(toy_host, text="red (circle:1.8)", tokens=0, measure="Full")
    assert (result.stopped, result.phrase) == ("exact", "it-a (it-b:1.8)")
    assert result.fidelity is not None
    assert result.fidelity.explained == 1
    assert result.fidelity.explained_in_context == pytest.approx(1)
    own = toy_host.model.token_vectors("red circle")["clip_l"].float()
    assert torch.equal(result.embedding.vectors["clip_l"], own)


def test_each_word_is_an_embedding_that_tells_of_the_others(toy_host: ToyHost) -> None:
    result = run(toy_host, text="(red:1.5) circle star", tokens=3)
    first, second = parts_of(result.embedding)
    assert (first.name, first.tokens, second.name, second.tokens) == ("it-a", 1, "it-b", 2)
    assert torch.equal(
        torch.cat([first.vectors["clip_l"], second.vectors["clip_l"]]), result.embedding.vectors["clip_l"]
    )
    assert [part.provenance["typed_weight"] for part in (first, second)] == [1.5, 1]
    for part in (first, second):
        assert part.provenance["phrase"] == "(it-a:1.5) it-b"
        assert part.provenance["words"] == [
            {"name": "it-a", "tokens": 1, "typed_weight": 1.5},
            {"name": "it-b", "tokens": 2, "typed_weight": 1.0},
        ]


@pytest.mark.parametrize(("text", "weight", "phrase"), [("red circle", 1, "it"), ("(red circle:1.3)", 1.3, "(it:1.3)")])
def test_a_prompt_of_one_weight_has_one_word(toy_host: ToyHost, text: str, weight: float, phrase: str) -> None:
    names: list[str] = []
    result = run(toy_host, Listener(on_names=names.extend), text=text, tokens=4, measure="Full")
    assert (result.typed_weight, result.phrase, names, result.stopped) == (weight, phrase, ["it"], "exact")
    assert parts_of(result.embedding) == [result.embedding]
    one, fewer, *_ = result.notes
    assert one == f"words='One per weight': the whole text has the weight {weight:g}, so one word is enough"
    assert fewer == "tokens=4: the text has only 2 tokens, so there are no more vectors"


def test_names_are_told_before_the_work_and_may_end_it(toy_host: ToyHost) -> None:
    def refuse(names: Sequence[str]) -> None:
        raise NameTaken(" ".join(names))

    with pytest.raises(NameTaken, match=r"^it-a it-b$"):
        run(toy_host, Listener(on_names=refuse))
    assert toy_host.model.denoised == 0


def test_one_word_tells_no_names(toy_host: ToyHost) -> None:
    names: list[str] = []
    run(toy_host, Listener(on_names=names.extend), words="One", learning_steps=1)
    assert names == []


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"typed_weight": 1.2}, "typed_weight=1.2: words='One per weight' sets the weights by itself; choose 1"),
        ({"typed_weight": 0.0}, "typed_weight=0: words='One per weight' sets the weights by itself; choose 1"),
        (
            {"initial_prompt": "a"},
            "initial_prompt: words='One per weight' starts from the text's own tokens; leave it empty",
        ),
        (
            {"text": "red AND (blue:1.5)"},
            "words='One per weight': the text has a schedule, AND or a part weight (text :1.2), which words cannot "
            "have; choose 'One', or remove it",
        ),
        (
            {"text": "(red:1.5) [circle:star:3]"},
            "words='One per weight': the text has a schedule, AND or a part weight (text :1.2), which words cannot "
            "have; choose 'One', or remove it",
        ),
        (
            {"text": "(red:1.5) (blue:1.2) circle", "tokens": 2},
            "tokens=2: the text has 3 weights, each a word of its own; take 3 or more, or choose words='One'",
        ),
        (
            {"text": " ".join(f"(red:{weight / 10})" for weight in range(1, 6)), "tokens": 2},
            "words='One per weight': the text has 5 weights, too many; choose 'One'",
        ),
        (
            {"templates": "a {} {0:2}"},
            "template 'a {} {0:2}' has {0:2}, which stands for some of the vectors: leave it out",
        ),
    ],
)
def test_what_makes_no_words_is_refused(toy_host: ToyHost, values: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        run(toy_host, **values)
    assert caught.value.problems == [line]


def test_modes_without_weights_have_no_words(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_host.model, "info", replace(toy_host.model.info, emphasis="Ignore"))
    with pytest.raises(SettingsError) as caught:
        run(toy_host)
    assert caught.value.problems == ["words='One per weight': the emphasis mode Ignore reads no weights; choose 'One'"]


@pytest.mark.parametrize("part", ["Attention", "Attention + U-Net", "U-Net", "Transformer"])
@pytest.mark.parametrize("negative", quick_first(1, [True, False]))
def test_all_parts_train_words(toy_host: ToyHost, part: str, negative: bool) -> None:
    side: dict[str, Any] = {"prompt_type": "Negative Prompt" if negative else "Prompt", "other_prompt": "star"}
    result = run(toy_host, text="(red:1.8) (blue:1.8) circle star", tokens=3, part=part, learning_steps=30, **side)
    assert result.phrase == "(it-a:1.8) it-b" and result.embedding.tokens == 3
    assert min(result.losses) < result.losses[0]


def test_snapshots_are_of_all_words(toy_host: ToyHost) -> None:
    kept: list[Embedding] = []
    on = Listener(on_snapshot=lambda embedding, step: kept.append(embedding))
    run(toy_host, on, text="(red:1.8) (blue:1.8) star", tokens=2, save_every=30)
    assert [[part.name for part in parts_of(each)] for each in kept] == [["it-a", "it-b"]] * 2
