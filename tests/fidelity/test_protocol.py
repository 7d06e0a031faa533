"""Protocol v2 against its own definition."""

import dataclasses
import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from figures import FIGURES
from shaking import shaken
from suites import quick_first
from toy import ToyModel

from embedding_estimate.checks import advice
from embedding_estimate.fidelity import among_words, protocol
from embedding_estimate.fidelity.wording import number, rows
from embedding_estimate.teaching.sides import Side, error
from embedding_estimate.teaching.teacher import Task, Teacher

TEXT = "red (circle:1.8)"


def task(text: str = TEXT, *, negative: bool = False) -> Task:
    return Task(text, negative, ("dull",), 32, 32)


def random_vectors(tokens: int) -> dict[str, torch.Tensor]:
    return {"clip_l": torch.randn(tokens, 6, generator=torch.Generator().manual_seed(shaken(1)), dtype=torch.float64)}


@pytest.mark.parametrize("negative", [False, True])
def test_the_prompt_itself_is_explained_whole(toy: ToyModel, negative: bool) -> None:
    """Vectors that are the prompt: 1. The weights of this one are all 1, so nothing is left for emphasis."""
    vectors = toy.token_vectors("red circle")
    figures, _ = protocol.measure(toy, task("red circle", negative=negative), vectors, batch=4)
    assert figures.explained == 1
    assert figures.explained_without_weights == 1
    assert figures.explained_truncated == 1
    assert figures.explained_in_context == pytest.approx(1)  # here the U-Net is asked again, in batches of another size
    assert figures.image_distance == 0
    assert figures.emphasis_explained is figures.emphasis_in_context is None
    assert figures.image_distance_without_weights is None


def test_the_empty_prompt_explains_nothing(toy: ToyModel) -> None:
    """Toy vectors of zeros are the toy's empty prompt."""
    zeros = {"clip_l": torch.zeros(2, 6, dtype=torch.float64)}
    figures, _ = protocol.measure(toy, task(), zeros, batch=4)
    assert abs(figures.explained) < 1e-12
    worth = 1 - 1 / (1 - figures.explained_without_weights)  # of the empty prompt beside the bare words
    assert figures.emphasis_explained in (None, pytest.approx(worth))
    assert figures.image_distance == pytest.approx(1)


def test_the_words_without_weights_are_the_zero_of_emphasis(toy: ToyModel) -> None:
    figures, _ = protocol.measure(toy, task(), toy.token_vectors(TEXT), batch=4)
    assert figures.emphasis_explained == 0
    assert figures.explained == figures.explained_without_weights == figures.explained_truncated
    assert figures.image_distance_without_weights == 1


def test_figures_follow_from_the_errors(toy: ToyModel) -> None:
    figures, _ = protocol.measure(toy, task(), random_vectors(2), batch=4, images=0)
    errors = figures.errors
    assert figures.explained == 1 - errors["embedding"] / errors["empty"]
    assert figures.emphasis_explained == 1 - errors["embedding"] / errors["without weights"]
    assert figures.image_distance is None
    json.dumps(figures.to_dict(), allow_nan=False)


def test_a_distance_takes_all_images(toy: ToyModel) -> None:
    """One seed's are the first of the sixteen; a figure of the protocol they do not make."""
    whole, images = protocol.measure(toy, task(), random_vectors(2), batch=8)
    one, image = protocol.measure(toy, task(), random_vectors(2), batch=8, images=1)
    assert whole.image_distance is not None and one.image_distance is None
    assert {row: len(latents) for row, latents in images.latents.items()} == dict.fromkeys(protocol.PICTURED, 16)
    assert all(torch.allclose(image.latents[row][0], images.latents[row][0]) for row in protocol.PICTURED)
    teacher = Teacher(toy, task())
    drawn = teacher.run(teacher.replaced(TEXT, protocol.TRAJECTORY), protocol.TRAJECTORY, protocol.IMAGE_SEEDS, 16)
    torch.testing.assert_close(images.latents["prompt"], drawn)  # though eight of them come of the figures' states
    assert one.errors == whole.errors


def test_errors_by_hand(toy: ToyModel) -> None:
    """err = mean |D(x; c) - D(x; prompt)|^2 / sigma^2 over 8 seeds of 20 Euler steps."""
    vectors = random_vectors(2)
    figures, _ = protocol.measure(toy, task(), vectors, batch=8, images=0)
    teacher = Teacher(toy, task())
    states = teacher.record(teacher.replaced(TEXT, protocol.TRAJECTORY), protocol.TRAJECTORY, protocol.SEEDS, 8)
    assert len(states) == 8 * 20
    mine = toy.denoise(states.x, states.sigma, teacher.encode_vectors(vectors))
    by_hand = ((mine - states.target) / states.sigma.view(-1, 1, 1, 1)).square().mean()
    assert figures.errors["embedding"] == pytest.approx(float(by_hand), rel=1e-9)


def test_among_other_words_by_hand(toy: ToyModel) -> None:
    """Sums over the contexts, each with the states of a seed of its own: 10 Euler steps of T[prompt]."""
    vectors = random_vectors(2)
    figures, _ = protocol.measure(toy, task(), vectors, batch=8, images=0)
    teacher, trajectory = Teacher(toy, task()), among_words.TRAJECTORY
    mine = words = nothing = 0.0
    for seed, context in zip(protocol.SEEDS, toy.info.contexts.report, strict=False):
        prompt, bare, empty = (
            teacher.replaced(context.replace("{}", text), trajectory) for text in (TEXT, "red circle", "")
        )
        states = teacher.record(prompt, trajectory, [seed], 8)
        assert len(states) == 10
        mine += error(teacher.student(vectors, context), states, 8)
        words += error(bare, states, 8)
        nothing += error(empty, states, 8)
    assert figures.explained_in_context == pytest.approx(1 - mine / nothing)
    assert figures.emphasis_in_context == pytest.approx(1 - mine / words)
    assert figures.explained_in_context_without_weights == pytest.approx(1 - words / nothing)
    assert [row["context"] for row in figures.contexts] == list(toy.info.contexts.report)
    assert sum(row["embedding"] for row in figures.contexts) == pytest.approx(mine)
    lost = {row["context"]: row["embedding"] - row["without weights"] for row in figures.contexts}
    assert lost[figures.worst_context] == max(lost.values())


def test_a_context_keeps_its_own_weights_beside_the_bare_words(toy: ToyModel) -> None:
    contexts = dataclasses.replace(toy.info.contexts, report=("(blue:1.6) {}", "blue {}"))
    toy.info = dataclasses.replace(toy.info, contexts=contexts)
    plain = {"clip_l": toy.token_vectors(TEXT)["clip_l"]}
    figures, _ = protocol.measure(toy, task(), plain, batch=8, images=0)  # which are the bare words
    assert figures.emphasis_in_context == pytest.approx(0)
    weighted, unweighted = (row["without weights"] for row in figures.contexts)
    assert weighted != unweighted


def test_the_words_themselves_are_the_zero_of_emphasis_in_context_and_less_is_told(toy: ToyModel) -> None:
    figures, _ = protocol.measure(toy, task(), random_vectors(2), batch=8, images=0)
    assert figures.emphasis_in_context is not None and figures.emphasis_in_context < 0
    (line,) = advice.of_figures(figures)
    assert f"emphasis in context {figures.emphasis_in_context:.2f}" in line and figures.worst_context in line
    better = dataclasses.replace(figures, emphasis_in_context=0.0)
    assert advice.of_figures(better) == advice.of_figures(dataclasses.replace(figures, emphasis_in_context=None)) == []


def test_a_standard_error_by_hand() -> None:
    """Leaving out one of 1 - (1 + 2 + 3) / 12: 1 - 5/8, 1 - 4/8 and 1 - 3/8."""
    found = among_words.standard_error(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 4.0, 4.0]))
    assert found == pytest.approx((2 / 3 * (0.125**2 + 0 + 0.125**2)) ** 0.5)
    assert among_words.standard_error(torch.ones(1), torch.ones(1)) is None
    assert among_words.standard_error(torch.ones(2), torch.zeros(2)) is None


def test_figures_over_contexts_by_hand(toy: ToyModel) -> None:
    """The jackknife leaves out one context after the other."""
    teacher = Teacher(toy, task())
    prompt = teacher.replaced(TEXT, protocol.TRAJECTORY)
    states = teacher.record(prompt, protocol.TRAJECTORY, [0], 8)
    measured = [
        (among_words.Context(template, states, words, nothing), own)
        for template, own, words, nothing in (
            ("a {}", 1.0, 2.0, 10.0),
            ("{} b", 2.0, 4.0, 10.0),
            ("c {}", 3.0, 2.0, 20.0),
        )
    ]
    figures = among_words.InContexts.of(measured)
    assert (figures.explained, figures.without_weights) == pytest.approx((1 - 6 / 40, 1 - 8 / 40))
    assert figures.emphasis == pytest.approx(1 - 6 / 8)
    assert figures.worst == "c {}"
    assert figures.rows[1] == {"context": "{} b", "embedding": 2.0, "without weights": 4.0, "nothing": 10.0}

    def spread(*left_out: float) -> float:
        center = sum(left_out) / 3
        return float((2 / 3 * sum((value - center) ** 2 for value in left_out)) ** 0.5)

    assert figures.standard_errors == pytest.approx(
        {
            "explained_in_context": spread(1 - 5 / 30, 1 - 4 / 30, 1 - 3 / 20),
            "emphasis_in_context": spread(1 - 5 / 6, 1 - 4 / 4, 1 - 3 / 6),
        }
    )


def test_each_context_has_a_seed_of_its_own_while_there_are_enough(toy: ToyModel) -> None:
    """Eight seeds, so the ninth context has the first one again."""
    words = ("a", "big", "blue", "cat", "green", "dull", "star", "red", "circle")
    templates = [f"{word} {{}}" for word in words]
    figures, _ = protocol.measure(toy, task(), random_vectors(2), batch=8, images=0, contexts=templates)
    teacher = Teacher(toy, task())
    for row, seed in zip(figures.contexts, [*protocol.SEEDS, protocol.SEEDS[0]], strict=True):
        here = among_words.Context.of(teacher, row["context"], among_words.TRAJECTORY, seed, 8)
        assert (row["without weights"], row["nothing"]) == pytest.approx((here.words, here.nothing))


def test_baselines_are_marked_and_a_distance_is_no_share() -> None:
    table = rows(FIGURES, 2)
    assert [row.label for row in table if row.baseline] == ["without weights", "cut to fit", "without weights"]
    assert [row.label for row in table if not row.share] == ["image distance"]
    assert [row.label for row in table if row.share and not row.baseline] == [
        *("explained", "emphasis explained", "explained in context", "emphasis in context")
    ]


def test_standard_errors_are_over_the_seeds(toy: ToyModel) -> None:
    """Each seed's states are one sample, however many they are."""
    vectors, teacher = random_vectors(2), Teacher(toy, task())
    figures, _ = protocol.measure(toy, task(), vectors, batch=8, images=0)
    prompts = {
        "prompt": teacher.replaced(TEXT, protocol.TRAJECTORY),
        "nothing": teacher.replaced("", protocol.TRAJECTORY),
        "words": teacher.replaced(TEXT, protocol.TRAJECTORY, weights=False),
    }
    each_seed = [teacher.record(prompts["prompt"], protocol.TRAJECTORY, [seed], 8) for seed in protocol.SEEDS]

    def errors(side: Side) -> torch.Tensor:
        return torch.tensor([error(side, states, 8) for states in each_seed], dtype=torch.float64)

    mine = errors(teacher.student(vectors))
    assert figures.standard_errors["explained"] == pytest.approx(
        among_words.standard_error(mine, errors(prompts["nothing"]))
    )
    assert figures.standard_errors["emphasis_explained"] == pytest.approx(
        among_words.standard_error(mine, errors(prompts["words"]))
    )


def test_what_is_the_same_is_measured_once(toy: ToyModel) -> None:
    """Room for all the words: those cut to fit are those without weights, and one pass over 160 states is saved."""

    def measured(tokens: int) -> Mapping[str, float]:
        toy.denoised = 0
        return protocol.measure(toy, task(), random_vectors(tokens), batch=8, images=0)[0].errors

    roomy = measured(2)
    saved = -toy.denoised
    assert roomy["truncated"] == roomy["without weights"]
    narrow = measured(1)
    assert narrow["truncated"] != narrow["without weights"]
    assert saved + toy.denoised == 8 * 20


@pytest.mark.slow
def test_the_batch_changes_nothing(toy: ToyModel) -> None:
    asked = dataclasses.replace(task(), typed_weight=1.2)
    one, many = (protocol.measure(toy, asked, random_vectors(3), batch=batch)[0].to_dict() for batch in (1, 16))
    assert one.pop("protocol") == many.pop("protocol") == "v2"
    for key in ("errors", "explained_in_modes", "standard_errors"):
        assert one.pop(key) == pytest.approx(many.pop(key), rel=1e-9)
    for key in ("worst_context", "pictured_context"):
        assert one.pop(key) == many.pop(key)
    for mine, other in zip(one.pop("contexts"), many.pop("contexts"), strict=True):
        assert mine.pop("context") == other.pop("context")
        assert mine == pytest.approx(other, rel=1e-9)
    assert one == pytest.approx(many, rel=1e-9)


def test_a_typed_weight_is_measured_beside_the_bare_name(toy: ToyModel) -> None:
    bare, _ = protocol.measure(toy, task(), random_vectors(2), batch=8)
    assert bare.typed_weight == 1 and "bare name" not in bare.errors
    assert bare.explained_bare is bare.emphasis_explained_bare is bare.explained_in_context_bare is None
    typed, _ = protocol.measure(toy, dataclasses.replace(task(), typed_weight=1.2), random_vectors(2), batch=8)
    assert typed.typed_weight == 1.2 and typed.explained != bare.explained
    assert typed.explained_bare == bare.explained
    assert typed.emphasis_explained_bare == bare.emphasis_explained
    assert typed.explained_in_context_bare == bare.explained_in_context != typed.explained_in_context
    assert typed.emphasis_in_context_bare == bare.emphasis_in_context != typed.emphasis_in_context
    assert typed.explained_truncated == bare.explained_truncated  # what is free of charge has no weight
    assert typed.errors["bare name"] == bare.errors["embedding"]


def test_a_typed_weight_is_measured_under_other_settings_for_emphasis(toy: ToyModel) -> None:
    def measured(weight: float) -> protocol.Fidelity:
        asked = dataclasses.replace(task("red circle"), typed_weight=weight)  # the same prompt under any setting
        return protocol.measure(toy, asked, random_vectors(2), batch=8, images=0)[0]

    own = measured(1.2)
    with toy.mode("Original"):
        other = measured(1.2)
    assert own.explained_in_modes == {"Original": other.explained} != {"Original": own.explained}
    assert measured(1.0).explained_in_modes == {}


def test_the_toys_prompts_without_weights_are_the_same_bits_in_every_mode(toy: ToyModel) -> None:
    """Or figures under several settings would be of several prompts, a last digit apart."""

    def context(text: str) -> torch.Tensor:
        return toy.encode(text, evaluations=1, width=32, height=32)[0].parts[0][0].context

    texts = ("red circle", "a small red circle on a blue star", "")
    own = [context(text) for text in texts]
    with toy.mode("Original"):
        assert all(map(torch.equal, map(context, texts), own))


def test_rows_hold_a_typed_weight_against_the_bare_name(toy: ToyModel) -> None:
    def labels(weight: float) -> list[str]:
        asked = dataclasses.replace(task(), typed_weight=weight)
        figures, _ = protocol.measure(toy, asked, random_vectors(2), batch=8, images=0)
        return [row.label for row in rows(figures, 2)]

    assert "bare name" not in labels(1.0)
    assert labels(0.9) == [
        *("explained", "bare name", "in mode Original", "without weights", "cut to fit"),
        *("emphasis explained", "bare name"),
        *("explained in context", "bare name", "without weights"),
        *("emphasis in context", "bare name"),
    ]


def test_a_figure_is_three_digits_or_a_dash() -> None:
    shown = [number(value) for value in (None, 0.98765, -0.0001, -2.0, float("nan"), float("-inf"))]
    assert shown == ["-", "0.988", "0.000", "-2.000", "nan", "-inf"]


@pytest.mark.parametrize(
    ("weight", "asked"),
    quick_first(
        1,
        [
            (1.2, task()),
            (1.0, task()),
            (1.0, task("red circle")),
            (1.0, dataclasses.replace(task(), other_prompts=("star",))),
        ],
    ),
)
def test_progress_reaches_its_total_and_images_are_there(toy: ToyModel, weight: float, asked: Task) -> None:
    seen: list[tuple[int, int]] = []
    asked = dataclasses.replace(asked, typed_weight=weight)
    _, images = protocol.measure(
        toy, asked, random_vectors(1), batch=4, on_progress=lambda done, total: seen.append((done, total))
    )
    total = seen[0][1]
    assert seen[0] == (0, total) and seen[-1] == (total, total) and seen == sorted(set(seen))
    assert total == toy.denoised  # the work is told in samples, and this prompt has one to an evaluation
    assert all(after - before <= 2 * 4 for (before, _), (after, _) in pairwise(seen))
    assert {"prompt", "embedding", "without weights", "empty"} <= images.latents.keys()
    assert all(latents.shape == (16, 4, 4, 4) for latents in images.latents.values())


@pytest.mark.parametrize("weight", quick_first(1, [1.2, 1.0]))
def test_figures_are_told_as_soon_as_they_are_measured(toy: ToyModel, weight: float) -> None:
    asked = dataclasses.replace(task(), typed_weight=weight)
    told: list[tuple[int, Mapping[str, float | None]]] = []  # beside the work that was done before
    figures, _ = protocol.measure(
        toy, asked, random_vectors(2), batch=8, on_figures=lambda known: told.append((toy.denoised, known))
    )
    names = [("explained", "emphasis_explained"), ("explained_in_context", "emphasis_in_context")]
    whole = figures.to_dict()
    assert [known for _, known in told] == [{name: whole[name] for name in pair} for pair in names]
    (alone, _), (inside, _) = told
    assert alone < inside < toy.denoised  # the contexts come after the first, the images after the second


@pytest.mark.parametrize("weight", quick_first(1, [1.2, 1.0]))
def test_images_in_a_context_are_of_the_same_seeds_and_change_no_figure(toy: ToyModel, weight: float) -> None:
    vectors, asked = random_vectors(1), dataclasses.replace(task(), typed_weight=weight)
    figures, images = protocol.measure(toy, asked, vectors, batch=4)
    assert figures.pictured_context == "blue {}"
    teacher = Teacher(toy, asked)
    sides = {
        "prompt": teacher.replaced(f"blue {TEXT}", protocol.TRAJECTORY),
        "embedding": teacher.student(vectors, "blue {}"),
        "without weights": teacher.replaced("blue red circle", protocol.TRAJECTORY),
    }
    assert list(images.in_context) == list(sides)
    for row, side in sides.items():
        drawn = teacher.run(side, protocol.TRAJECTORY, protocol.IMAGE_SEEDS[:2], 4)
        assert torch.allclose(images.in_context[row], drawn, rtol=1e-9)
    assert not torch.allclose(images.in_context["embedding"], images.latents["embedding"][:2])

    without, none = protocol.measure(toy, asked, vectors, batch=4, images=0)
    assert none.in_context == {} and without.pictured_context == ""
    pictured = ("pictured_context", "image_distance", "image_distance_without_weights")
    alike: dict[str, Any] = dict.fromkeys(pictured)
    assert dataclasses.replace(figures, **alike) == dataclasses.replace(without, **alike)


def test_images_in_a_context_are_few(toy: ToyModel) -> None:
    """Three rows of two seeds, twenty steps, both sides of the guidance; of one seed where one is asked for."""
    work = {}
    for images in (0, 1, 16):
        toy.denoised = 0
        _, made = protocol.measure(toy, task(), random_vectors(1), batch=8, images=images)
        work[images] = toy.denoised
        assert all(len(latents) == min(images, 2) for latents in made.in_context.values())
    alone = 20 * 2  # the empty prompt's other side is not empty here
    assert work[1] - work[0] == 3 * alone + 3 * alone  # the prompt's one is what its states end in
    assert work[16] - work[0] == (3 * 16 + 8) * alone + 3 * 2 * alone


@pytest.mark.parametrize(
    ("templates", "pictured"),
    [(("a b c d e {}", "blue {}"), "blue {}"), (("a b c d e {}", "a b c d e f {}"), "a b c d e {}")],
)
def test_images_are_made_in_a_context_of_one_chunk_where_there_is_one(
    toy: ToyModel, templates: tuple[str, ...], pictured: str
) -> None:
    assert toy.info.chunk_tokens == 4
    assert among_words.pictured_context(Teacher(toy, task()), templates) == pictured


def test_what_is_the_same_in_a_context_is_drawn_once(toy: ToyModel) -> None:
    """Vectors that are the bare words."""
    _, images = protocol.measure(toy, task(), toy.token_vectors(TEXT), batch=8, images=1)
    assert images.in_context["embedding"] is images.in_context["without weights"]
    assert not torch.equal(images.in_context["embedding"], images.in_context["prompt"])
