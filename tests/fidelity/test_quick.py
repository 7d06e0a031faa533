"""Quick figures are the protocol's, from a few of its states."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fidelity.test_protocol import TEXT, random_vectors, task
from figures import FIGURES
from toy import ToyModel

from embedding_estimate.fidelity import among_words, protocol, quick
from embedding_estimate.fidelity.among_words import Context
from embedding_estimate.fidelity.protocol import Fidelity
from embedding_estimate.fidelity.wording import rows
from embedding_estimate.model.contexts import Contexts
from embedding_estimate.teaching.recall import Recall
from embedding_estimate.teaching.sides import error
from embedding_estimate.teaching.teacher import Teacher

TEMPLATES = tuple(f"{{}} {chr(97 + number)}" for number in range(12))


@pytest.fixture
def many(toy: ToyModel) -> ToyModel:
    """With as many contexts as a model has."""
    contexts = Contexts(train=("a {}",), select=("big {}",), report=TEMPLATES)
    toy.info = toy.info.__class__(**{**vars(toy.info), "contexts": contexts, "negative_contexts": contexts})
    return toy


def measured(toy: ToyModel, text: str = TEXT, **options: Any) -> Fidelity:
    return quick.measure(toy, task(text), random_vectors(2), batch=4, **options)[0]


def of_weights(mine: float, words: float, nothing: float, figures: Fidelity, name: str) -> Any:
    """The figure of three errors; None where the weights of the drawn model do nothing, or it is not sure."""
    figure = 1 - mine / words if words >= among_words.NO_EMPHASIS * nothing else None
    return None if quick.sure(figure, figures.standard_errors[name]) is None else pytest.approx(figure)


def test_alone_they_follow_from_the_errors_at_three_states_of_two_seeds(toy: ToyModel) -> None:
    figures, teacher, trajectory = measured(toy), Teacher(toy, task()), among_words.TRAJECTORY
    prompt = teacher.replaced(TEXT, trajectory)
    states = teacher.record(prompt, trajectory, protocol.SEEDS[:2], 4)
    states = states[torch.isin(states.evaluation, torch.tensor([1, 4, 7]))]
    assert len(states) == 6
    mine = error(teacher.student(random_vectors(2)), states, 4)
    bare = error(teacher.student(toy.token_vectors(TEXT)), states, 4)
    empty = error(teacher.replaced("", trajectory), states, 4)
    assert figures.explained == pytest.approx(1 - mine / empty)
    assert figures.emphasis_explained == of_weights(mine, bare, empty, figures, "emphasis_explained")
    assert figures.explained_without_weights == pytest.approx(1 - bare / empty)


def test_in_context_they_are_the_protocols_own_trajectories(many: ToyModel) -> None:
    figures, teacher, vectors = measured(many), Teacher(many, task()), random_vectors(2)
    assert [row["context"] for row in figures.contexts] == [TEMPLATES[number] for number in (0, 3, 6, 9)]
    sums = torch.zeros(3, dtype=torch.float64)
    for number in (0, 3, 6, 9):
        seed = protocol.SEEDS[number % 8]
        whole = Context.of(teacher, TEMPLATES[number], among_words.TRAJECTORY, seed, 4)
        states = whole.states[torch.isin(whole.states.evaluation, torch.tensor([2, 5]))]
        here = Context.of(teacher, TEMPLATES[number], among_words.TRAJECTORY, seed, 4, at=(2, 5))
        torch.testing.assert_close(here.states.x, states.x)
        sums += torch.tensor([error(teacher.student(vectors, TEMPLATES[number]), states, 4), here.words, here.nothing])
    mine, words, nothing = sums.tolist()
    assert figures.explained_in_context == pytest.approx(1 - mine / nothing)
    assert figures.emphasis_in_context == of_weights(mine, words, nothing, figures, "emphasis_in_context")


@pytest.mark.slow
def test_the_full_protocol_need_not_ask_for_these_again(many: ToyModel) -> None:
    def passes(recall: Recall) -> int:
        before = many.denoised
        protocol.measure(many, task(), random_vectors(2), batch=4, images=0, recall=recall)
        return many.denoised - before

    alone, recall = passes(Recall()), Recall()
    measured(many, recall=recall)
    assert passes(recall) == alone - 4 * 6 * 2  # both sides on the way


@pytest.mark.parametrize(("images", "alone"), [(0, False), (1, False), (1, True), (2, True)])
def test_they_cost_what_is_said(many: ToyModel, images: int, alone: bool) -> None:
    said: list[tuple[int, int]] = []
    _, made = quick.measure(
        many, task(), random_vectors(2), batch=4, images=images, alone=alone,
        on_progress=lambda done, total: said.append((done, total)),
    )  # fmt: skip
    figures = 2 * (2 * 8 + 3 * 3) + 4 * (2 * 6 + 3 * 2)
    rows = 4 if alone else 3
    assert many.denoised == said[-1][0] == said[-1][1] == figures + images * rows * 20
    assert (set(made.latents), set(made.in_context)) == (
        set(protocol.PICTURED) if alone and images else set(),
        {"prompt", "embedding", "without weights"} if images and not alone else set(),
    )


def test_an_empty_other_side_says_what_nothing_does(many: ToyModel) -> None:
    empty = task().__class__(TEXT, False, ("",), 32, 32)
    quick.measure(many, empty, random_vectors(2), batch=4)
    assert many.denoised == 2 * (2 * 8 + 2 * 3) + 4 * (2 * 6 + 3 * 2)


def test_each_figure_has_a_standard_error(many: ToyModel) -> None:
    figures = measured(many)
    assert figures.quick and figures.protocol == "quick v2"
    assert set(figures.standard_errors) == {
        *("explained", "emphasis_explained", "explained_in_context", "emphasis_in_context")
    }
    for name, value in figures.standard_errors.items():
        no_weights = name.startswith("emphasis") and getattr(figures, name) is None  # in a model that was drawn so
        assert no_weights if value is None else value >= 0
    assert measured(many, contexts=["x {}"]).standard_errors["explained_in_context"] is None


def test_all_contexts_of_the_users_are_measured_in(many: ToyModel) -> None:
    own = [f"{letter} {{}}" for letter in "stuvwxyz"]
    figures = measured(many, contexts=own)
    assert [row["context"] for row in figures.contexts] == own and figures.own_contexts


def test_the_prompt_itself_is_explained_whole(toy: ToyModel) -> None:
    figures, _ = quick.measure(toy, task("red circle"), toy.token_vectors("red circle"), batch=4, images=1)
    assert figures.explained == pytest.approx(1) and figures.explained_in_context == pytest.approx(1)
    assert figures.emphasis_explained is figures.emphasis_in_context is None
    assert figures.pictured_context == "blue {}"


def test_a_typed_weight_is_measured_with_it(toy: ToyModel) -> None:
    typed, vectors = task().__class__(TEXT, False, ("dull",), 32, 32, typed_weight=1.3), random_vectors(2)
    figures, _ = quick.measure(toy, typed, vectors, batch=4)
    bare, _ = quick.measure(toy, task(), vectors, batch=4)
    assert figures.typed_weight == 1.3 and figures.explained != bare.explained
    assert figures.explained_bare is None and figures.explained_in_modes == {}


def test_a_figure_that_is_not_sure_is_none() -> None:
    assert [quick.sure(0.5, error) for error in (0.0, 0.25, 0.26, None)] == [0.5, 0.5, None, 0.5]
    assert quick.sure(None, None) is None
    unsure = replace(FIGURES, protocol="quick v2", emphasis_explained=None, emphasis_in_context=None)
    told = [row.meaning for row in rows(unsure, 2) if row.label in ("emphasis explained", "emphasis in context")]
    assert told == ["no figure: quick figures are not sure of it; measure fully"] * 2
