"""As few words as are needed: which plans there are, which is taken, and what is kept where it ends early."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from suites import quick_first
from toy import ToyHost

from embedding_estimate.estimation.listener import NOBODY, Listener
from embedding_estimate.estimation.trainer import Estimate, estimate
from embedding_estimate.objectives.objective import Objective
from embedding_estimate.progress import Progress, StopReason, StopToken
from embedding_estimate.settings import FEW_WORDS, WORD_PER_WEIGHT, Settings
from embedding_estimate.storage.phrases import parts_of
from embedding_estimate.teaching.plan import phases
from embedding_estimate.teaching.words import Word, plans
from embedding_estimate.training import bare_words, few_words
from embedding_estimate.training.loop import train

TEXT = "(red:1.8) circle (blue:0.4) star"


def made(**values: Any) -> Settings:
    asked = {"text": TEXT, "words": FEW_WORDS, "name": "it", "tokens": 3}
    quick = {"part": "U-Net", "templates": "{}", "steps": 4, "learning_steps": 12, "measure": "Nothing"}
    return Settings(**{**asked, **quick, **values})


def run(host: ToyHost, listener: Listener = NOBODY, stop: StopToken | None = None, **values: Any) -> Estimate:
    return estimate(made(**values), host, listener, stop=stop)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Emphasis explained by each number of words from one on, before any training and after it."""
    shares: list[float] = []

    def emphasis(self: Any, one: Any) -> float:
        return shares[len(one.words) - 1]

    monkeypatch.setattr(few_words._Search, "emphasis", emphasis)
    return shares


def test_neighbours_whose_weights_are_nearest_are_one_word_first(toy_host: ToyHost) -> None:
    four = plans(made(text="(red:1.8) circle (blue:0.4) star", tokens=4), toy_host.model)
    assert four == [
        (Word(1.0, (0, 1, 2, 3)),),
        (Word(1.8, (0,)), Word(0.8, (1, 2, 3))),
        (Word(1.8, (0,)), Word(0.7, (1, 2)), Word(1.0, (3,))),
        (Word(1.8, (0,)), Word(1.0, (1,)), Word(0.4, (2,)), Word(1.0, (3,))),
    ]


def test_the_last_plan_is_one_word_per_weight(toy_host: ToyHost) -> None:
    for text, tokens in ((TEXT, 4), (TEXT, 0), ("(red circle:1.5) blue star", 3), ("(red:1.5)", 1)):
        few, per_weight = (
            plans(made(text=text, tokens=tokens, words=words), toy_host.model) for words in (FEW_WORDS, WORD_PER_WEIGHT)
        )
        assert few[-1] == per_weight[0] and len(per_weight) == 1
        assert [len(plan) for plan in few] == list(range(1, len(per_weight[0]) + 1))
        assert {sum(word.tokens for word in plan) for plan in few} == {sum(word.tokens for word in per_weight[0])}


def test_there_are_no_more_words_than_vectors(toy_host: ToyHost) -> None:
    found = plans(made(text="(red:1.8) circle (blue:0.4) (star:1.4)", tokens=2), toy_host.model)
    assert [len(plan) for plan in found] == [1, 2] and [word.tokens for word in found[1]] == [1, 1]


def test_of_many_words_not_every_number_is_tried(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [1.0, 1.5] * 15
    model = toy_host.model
    monkeypatch.setattr(model, "token_weights", lambda text: weights)
    monkeypatch.setattr(model, "info", replace(model.info, chunk_tokens=40))
    found = plans(made(text=" ".join(["red"] * 30), tokens=30), model)
    assert [len(plan) for plan in found] == [1, 2, 3, 4, 6, 8, 12, 16, 26]


@pytest.mark.parametrize(
    ("shares", "goal", "words", "tried"),
    [
        ([0.95, 1, 1], 0.9, 1, 1),
        ([0.2, 0.9, 1], 0.9, 2, 2),
        ([0.2, 0.5, 0.91], 0.9, 3, 3),
        ([0.2, 0.6, 0.5], 0.9, 3, 3),  # none reaches it
        ([0.2, 0.6, 0.5], 0.0, 1, 1),
    ],
)
def test_the_first_number_that_reaches_the_goal_is_taken(
    toy_host: ToyHost, figures: list[float], shares: list[float], goal: float, words: int, tried: int
) -> None:
    figures += shares
    result = run(toy_host, emphasis_goal=goal)
    assert len(parts_of(result.embedding)) == words
    assert result.words_tried == [(number + 1, shares[number]) for number in range(tried)]
    assert result.stopped == "done" and result.steps == len(result.losses) == 12
    said = ", ".join(f"{number + 1}: {shares[number]:.2f}" for number in range(tried))
    assert f"number of words: {words}; emphasis explained by each number tried: {said}" in result.notes
    unreached = "emphasis_goal=0.9: no number of words reached it, so there is one for each weight"
    assert (unreached in result.notes) == (max(shares[:tried]) < goal)


@pytest.mark.parametrize("part", quick_first(2, ["Attention", "Transformer", "U-Net", "Attention + U-Net"]))
@pytest.mark.parametrize("negative", quick_first(1, [False, True]))
def test_all_parts_take_a_number_of_words_on_one_preparation(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, part: str, negative: bool
) -> None:
    solved = 0
    solve = few_words.solve

    def counted(*arguments: Any) -> Any:
        nonlocal solved
        solved += 1
        before = toy_host.model.denoised
        found = solve(*arguments)
        if part != "U-Net":
            assert toy_host.model.denoised == before  # the U-Net has run by then
        return found

    monkeypatch.setattr(few_words, "solve", counted)
    side: dict[str, Any] = {"prompt_type": "Negative Prompt" if negative else "Prompt", "other_prompt": "star"}
    seen: list[Progress] = []
    result = run(
        toy_host,
        Listener(on_progress=seen.append),
        part=part,
        learning_steps=30,
        emphasis_goal=1.0,
        templates="",
        **side,
    )
    assert solved == 1 and result.embedding.tokens == 3
    numbers = [number for number, _ in result.words_tried]
    assert numbers == list(range(1, len(numbers) + 1)) and len(parts_of(result.embedding)) == numbers[-1]
    trials = [progress for progress in seen if progress.phase == "words"]
    assert trials and all(0 < progress.done <= progress.total for progress in trials)


def test_the_figure_is_of_what_the_weights_add(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the objective's own contexts: 0 for the bare words, 1 for the prompt itself."""
    errors: list[float] = []

    def noted(objective: Objective[Any]) -> float:
        errors.append(bare(objective))
        return errors[-1]

    monkeypatch.setattr(bare_words, "error", noted)
    result = run(toy_host, tokens=0, learning_steps=1, emphasis_goal=1.0)
    assert result.words_tried[-1] == (4, 1.0) and result.stopped == "exact"
    first = result.words_tried[0][1]
    # the untrained first try is the bare words themselves, and a step may only better it
    assert errors[0] > 0 and first >= -1e-6


bare = bare_words.error


def test_one_weight_needs_no_trials(toy_host: ToyHost) -> None:
    names: list[str] = []
    result = run(toy_host, Listener(on_names=names.extend), text="(red circle:1.3)", tokens=0)
    assert (result.phrase, result.stopped, result.words_tried, names) == ("(it:1.3)", "exact", [], ["it"])


def test_all_names_that_there_may_be_are_told_before_the_work(toy_host: ToyHost) -> None:
    names: list[str] = []
    run(toy_host, Listener(on_names=names.extend))
    assert names == ["it", "it-a", "it-b", "it-c"]


@pytest.mark.parametrize("after", quick_first(2, [1, 8, 5, 11]))
def test_a_stop_keeps_the_best_so_far(toy_host: ToyHost, figures: list[float], after: int) -> None:
    """Reports of progress in the trials and in the training of what is taken."""
    figures += [0.2, 0.5, 0.8]
    stop = StopToken()
    reports = 0

    def on_progress(progress: Progress) -> None:
        nonlocal reports
        reports += progress.phase in ("words", "train")
        if reports == after:
            stop.stop(save=True)

    result = run(toy_host, Listener(on_progress=on_progress), stop, learning_steps=40)
    assert result.stopped in ("interrupted", "done") and result.words_tried
    assert result.embedding.tokens == 3 and len(parts_of(result.embedding)) in (1, 2, 3)


def test_what_has_reached_the_goal_is_kept_after_a_stop(toy_host: ToyHost, figures: list[float]) -> None:
    """Though a word for each weight would be closer, which with all tokens is the prompt itself."""
    figures += [0.2, 0.95, 0.96, 1]
    stop = StopToken()

    def on_progress(progress: Progress) -> None:
        if progress.phase == "train":
            stop.stop(save=True)

    result = run(toy_host, Listener(on_progress=on_progress), stop, tokens=0, learning_steps=40)
    assert result.stopped == "interrupted" and len(parts_of(result.embedding)) == 2


def test_a_stop_before_the_goal_saves_no_worse_than_a_word_for_each_weight(
    toy_host: ToyHost, figures: list[float]
) -> None:
    figures += [0.2, 0.3, 0.4, 1]
    stop = StopToken()

    def on_progress(progress: Progress) -> None:
        if progress.phase == "words":
            stop.stop(save=True)

    result = run(toy_host, Listener(on_progress=on_progress), stop, tokens=0)
    assert result.stopped == "interrupted" and result.phrase == "(it-a:1.8) it-b (it-c:0.4) it-d"


def test_an_error_in_a_later_try_keeps_what_there_is(
    toy_host: ToyHost, figures: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures += [0.2, 0.3, 0.4]
    runs = 0

    def failing(*arguments: Any) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            raise ValueError("of the model")
        train(*arguments)

    monkeypatch.setattr(few_words, "train", failing)
    result = run(toy_host)
    assert result.stopped == StopReason.FAILED
    assert any(line.startswith("the trials of words failed: ValueError: of the model") for line in result.notes)
    runs = 1
    with pytest.raises(ValueError, match="of the model"):
        run(toy_host)


def test_a_number_of_words_is_looked_for_once_and_without_a_sketch() -> None:
    found = phases(Settings(text="a", name="it", part="Attention + U-Net", words=FEW_WORDS))
    assert [(phase.part, phase.finds_words, phase.steps) for phase in found] == [
        ("Attention", True, 80),
        ("U-Net", False, 80),
    ]
