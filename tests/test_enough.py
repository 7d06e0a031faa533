"""As few vectors as are enough, on the toy host, whose chunk holds four tokens."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from toy import ToyHost, ToyModel

from embedding_estimate import enough, training
from embedding_estimate.errors import PromptError
from embedding_estimate.host import Conditioning, Vectors
from embedding_estimate.objectives import Objective
from embedding_estimate.progress import Progress, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.trainer import Estimate, estimate

OPEN = Settings(text="red (circle:1.8)", name="madeup", tokens=0, steps=4, learning_steps=30, measure="Nothing")


def run(host: ToyHost, **values: Any) -> Estimate:
    return estimate(replace(OPEN, **values), host)


def told(result: Estimate) -> dict[int, float]:
    """What the note says each number explains."""
    (note,) = (note for note in result.notes if "enough" in note)
    return {int(tokens): float(value) for tokens, value in re.findall(r"N = (\d+): (-?[\d.]+)", note)}


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, float]]:
    """What each number explains, before it is rounded for the note, whenever one is chosen."""
    seen: list[dict[int, float]] = []
    real = enough.fewest
    monkeypatch.setattr(enough, "fewest", lambda each: seen.append(dict(each)) or real(each))
    return seen


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number is tried, for the toy's prompts need few vectors."""
    monkeypatch.setattr(enough, "TOLERANCE", 1e-9)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"text": "red"}, [1]),
        ({"text": "red (circle:1.8)"}, [1, 2]),
        ({"text": "a red circle"}, [1, 2, 3]),
        ({"text": "a small red circle"}, [1, 2, 4]),
        ({"text": "a small red circle on a table"}, [1, 2, 4]),  # a chunk holds no more
        ({"text": "(,)"}, [1]),
        ({"tokens": 3}, [3]),
        ({"token_source": "Initial prompt", "initial_prompt": "a red"}, [2]),
    ],
)
def test_the_numbers_to_choose_from(toy: ToyModel, values: dict[str, Any], expected: list[int]) -> None:
    assert enough.counts(replace(OPEN, **values), toy) == expected


@pytest.mark.parametrize(
    ("explained", "expected"),
    [({1: 0.5}, 1), ({1: 0.5, 2: 0.9, 4: 0.915}, 2), ({1: 0.5, 2: 0.9, 4: 0.95, 7: 0.96}, 4), ({1: 0.9, 2: -0.2}, 1)],
)
def test_the_fewest_near_the_best_are_enough(explained: dict[int, float], expected: int) -> None:
    assert enough.fewest(explained) == expected


@pytest.mark.parametrize("part", ["Attention", "U-Net", "Transformer"])
def test_the_number_follows_from_what_each_explains(
    toy_host: ToyHost, explained: list[dict[int, float]], part: str
) -> None:
    result = run(toy_host, text="a (small:1.4) (red:1.6) (circle:1.8)", part=part, measure="Figures")
    (each,) = explained
    assert list(each) == [1, 2, 4][: len(each)] and told(result) == pytest.approx(each, abs=0.0006)
    assert result.embedding.tokens == enough.fewest(each)
    assert result.fidelity is not None
    assert result.embedding.provenance["settings"]["tokens"] == 0


@pytest.mark.slow
def test_more_start_where_fewer_ended_or_from_their_own_words(
    toy_host: ToyHost, strict: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is better on the select set."""
    ends: list[torch.Tensor] = []
    starts: list[tuple[torch.Tensor, torch.Tensor]] = []  # the one taken, the one expected
    real, text = training.train, "a (small:0.3) (red:1.6) (circle:1.8)"
    own = toy_host.model.token_vectors(text)["clip_l"]

    def train(run: training.Training, objective: Objective, *rest: Any) -> None:
        start = run.best["clip_l"].clone()
        candidates = [own[: len(start)]]
        if ends:
            candidates.append(torch.cat([ends[-1], own[len(ends[-1]) : len(start)]]))
        starts.append((start, min(candidates, key=lambda value: objective.held_out({"clip_l": value}))))
        real(run, objective, *rest)
        ends.append(run.best["clip_l"])

    monkeypatch.setattr(enough, "train", train)
    run(toy_host, text=text, part="U-Net")
    assert [len(start) for start, _ in starts] == [1, 2, 4]
    assert all(torch.equal(start, expected) for start, expected in starts)


def test_a_plain_prompt_needs_no_training_at_its_own_number(toy_host: ToyHost, strict: None) -> None:
    result = run(toy_host, text="red circle")
    assert result.embedding.tokens == 2 and result.stopped == "exact" and result.steps == 0
    assert any("saved without training" in note for note in result.notes)
    assert told(result)[2] == pytest.approx(1)
    single = run(toy_host, text="red")
    assert single.embedding.tokens == 1 and single.stopped == "exact"


def test_each_number_has_figures_of_its_own(toy_host: ToyHost, strict: None) -> None:
    heard: list[Progress] = []
    result = estimate(OPEN, toy_host, on_progress=heard.append)
    stretches = dict.fromkeys(progress.stretch for progress in heard if progress.loss is not None)
    assert list(stretches) == ["N = 1", "N = 2", "N = 4"][: len(stretches)] and len(stretches) > 1
    assert result.stretches == [(0, f"N = {result.embedding.tokens}")]


@pytest.mark.slow
def test_steps_are_counted_over_all_numbers(toy_host: ToyHost, strict: None) -> None:
    heard: list[Progress] = []
    snapshots: list[tuple[int, int]] = []
    result = estimate(
        replace(OPEN, save_every=20),
        toy_host,
        on_progress=heard.append,
        on_snapshot=lambda embedding, step: snapshots.append((step, embedding.tokens)),
    )
    trained = [progress for progress in heard if progress.phase == "train"]
    assert {progress.total for progress in trained} == {60} and trained[-1].done == 60
    assert [progress.done for progress in trained] == sorted(progress.done for progress in trained)
    assert snapshots == [(20, 1), (50, 2)]
    assert result.steps == len(result.losses) == 30


@pytest.mark.slow
@pytest.mark.parametrize("typed_weight", [1.0, 0.0])
def test_a_second_part_is_counted_on_from_all_numbers(
    toy_host: ToyHost, few_trials: None, strict: None, typed_weight: float
) -> None:
    heard: list[Progress] = []
    snapshots: list[int] = []
    result = estimate(
        replace(OPEN, part="Attention + U-Net", save_every=5, typed_weight=typed_weight),
        toy_host,
        on_progress=heard.append,
        on_snapshot=lambda embedding, step: snapshots.append(step),
    )
    trained = [progress for progress in heard if progress.phase == "train"]
    assert {progress.total for progress in trained} == {30 + 30 + 15}
    assert [progress.done for progress in trained] == sorted({progress.done for progress in trained})
    assert snapshots == sorted(set(snapshots)) and snapshots[-1] > 60 and result.steps > 30


def test_a_stop_keeps_the_best_of_what_there_is(
    toy_host: ToyHost, strict: None, explained: list[dict[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "READ_EVERY", 0.0)
    stop = StopToken()

    def listen(progress: Progress) -> None:
        if progress.phase == "train" and progress.done == 32:
            stop.stop(save=True)

    result = estimate(replace(OPEN, measure="Figures"), toy_host, on_progress=listen, stop=stop)
    assert result.stopped == "interrupted" and result.fidelity is None
    (each,) = explained
    assert list(each) == [1, 2] and result.embedding.tokens == enough.fewest(each)


@pytest.mark.slow
def test_a_stop_keeps_what_the_weight_was_solved_with(
    toy_host: ToyHost, few_trials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before another number has got anywhere."""
    monkeypatch.setattr(training, "READ_EVERY", 0.0)
    stop = StopToken()
    heard: list[Progress] = []

    def listen(progress: Progress) -> None:
        heard.append(progress)
        if progress.phase == "train":
            stop.stop(save=True)

    settings = replace(OPEN, text="a (small:0.3) (red:1.6) (circle:1.8)", typed_weight=0.0)
    result = estimate(settings, toy_host, on_progress=listen, stop=stop)
    assert result.stopped == "interrupted" and list(told(result)) == [1, 2]
    assert result.embedding.tokens == 2 and result.steps > OPEN.learning_steps
    assert result.seconds_train > result.seconds_prepare


@pytest.mark.slow
def test_a_number_that_was_solved_for_is_not_trained_again(
    toy_host: ToyHost, few_trials: None, strict: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    real = training.train

    def train(run: training.Training, *rest: Any) -> None:
        trained.append(len(run.best["clip_l"]))
        real(run, *rest)

    monkeypatch.setattr(enough, "train", train)
    result = run(toy_host, text="a (small:0.3) (red:1.6) (circle:1.8)", typed_weight=0.0)
    assert trained == [1, 4] and list(told(result)) == [1, 2, 4]
    assert len(result.notes) == len(set(result.notes))


@pytest.mark.slow
def test_a_second_part_refines_the_number_that_was_chosen(
    toy_host: ToyHost, few_trials: None, explained: list[dict[int, float]]
) -> None:
    result = run(toy_host, part="Attention + U-Net", typed_weight=0.0)
    assert result.embedding.tokens == enough.fewest(explained[0])
    assert result.steps > OPEN.learning_steps


def test_a_number_without_memory_costs_none_before_it(
    toy_host: ToyHost, strict: None, explained: list[dict[int, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = toy_host.model.encode_vectors

    def encode_vectors(vectors: Vectors, templates: Sequence[str], **options: Any) -> list[Conditioning]:
        if len(vectors["clip_l"]) > 2 and vectors["clip_l"].requires_grad:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(vectors, templates, **options)

    monkeypatch.setattr(toy_host.model, "encode_vectors", encode_vectors)
    result = run(toy_host, text="a (small:0.3) (red:1.6) (circle:1.8)")
    (each,) = explained
    assert set(each) == {1, 2} and result.embedding.tokens == enough.fewest(each)
    assert "out of memory with N = 4: it was chosen among the others" in result.notes


@pytest.mark.parametrize("templates", ["x y z {}", "{}\nx y z {}"])
def test_a_number_that_fills_other_chunks_is_told(toy_host: ToyHost, templates: str) -> None:
    """A chunk holds four tokens: the four of the text lie in a second one, a single vector does not."""
    with pytest.raises(PromptError, match="the prompt fills 2 chunks of 4 tokens and the embedding 1"):
        run(toy_host, text="a (small:0.3) (red:1.6) (circle:1.8)", part="Transformer", templates=templates)
