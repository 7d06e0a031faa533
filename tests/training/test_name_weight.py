"""The weight that a name is typed with: given, solved for, and told by the file."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from toy import ToyHost

from embedding_estimate.errors import Interrupted, SettingsError
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.estimation.trainer import Estimate, estimate
from embedding_estimate.files.names import typed_name
from embedding_estimate.model.host import Vectors
from embedding_estimate.model.vectors import VectorSpace
from embedding_estimate.objectives.objective import Objective
from embedding_estimate.progress import Progress, Stopped, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.teacher import Teacher
from embedding_estimate.training import name_weight
from embedding_estimate.training.handlers import Watch
from embedding_estimate.training.loop import train
from embedding_estimate.training.state import Training

EMPHASISED = Settings(text="(red circle:1.3)", name="madeup", tokens=2, steps=4, learning_steps=20, measure="Nothing")


def run(host: ToyHost, **values: Any) -> Estimate:
    return estimate(replace(EMPHASISED, **values), host)


def test_what_is_typed() -> None:
    assert typed_name("it", 1.0) == "it" and typed_name("it", 1.25) == "(it:1.25)"


def test_vectors_are_made_for_the_weight_that_is_given(toy_host: ToyHost) -> None:
    """The toy's weights act as the prompt's own, so that typing the words with them is the prompt."""
    result = run(toy_host, typed_weight=1.3, measure="Full")
    assert result.typed_weight == result.embedding.provenance["typed_weight"] == 1.3
    assert result.fidelity and result.fidelity.explained == pytest.approx(1)
    assert result.fidelity.explained_bare == pytest.approx(result.fidelity.explained_without_weights)


@pytest.mark.slow
def test_the_weight_is_solved_for(toy_host: ToyHost) -> None:
    result = run(toy_host, typed_weight=0.0, measure="Full")
    assert result.typed_weight == result.embedding.provenance["typed_weight"] != 1
    assert result.fidelity and result.fidelity.typed_weight == result.typed_weight
    bare = run(toy_host, measure="Full").fidelity
    assert bare and result.fidelity.explained > bare.explained


@pytest.mark.slow
def test_what_is_kept_is_what_was_judged(toy_host: ToyHost, few_trials: None) -> None:
    """A finalist's own training, trial steps included; all of the trials' time is told."""
    result = run(toy_host, typed_weight=0.0, part="U-Net")
    assert result.steps == len(result.losses) == name_weight.TRIAL_STEPS + EMPHASISED.learning_steps
    assert result.stretches == [(0, "U-Net")]  # one measure for both
    assert result.seconds_train > result.seconds_prepare


@pytest.mark.slow
@pytest.mark.parametrize(("part", "tokens"), [("U-Net", 2), ("Attention", 0), ("Attention", 2)])
@pytest.mark.parametrize("after", [0.1, 0.5, 0.9])
def test_a_stop_keeps_the_best_weight_so_far(
    toy_host: ToyHost, few_trials: None, part: str, tokens: int, after: float
) -> None:
    stop = StopToken()

    def on_progress(progress: Progress) -> None:
        if progress.phase == "weigh" and progress.done > after * progress.total:
            stop.stop(save=True)

    settings = replace(EMPHASISED, part=part, tokens=tokens, typed_weight=0.0)
    result = estimate(settings, toy_host, Listener(on_progress=on_progress), stop=stop)
    assert result.stopped == "interrupted" and result.steps > 0
    assert result.checks and (result.typed_weight == 1 or after > 0.1)


@dataclass(frozen=True)
class Judged:
    """A context in which so much is explained."""

    explained: Callable[[Teacher, Vectors], float]
    nothing: float = 1.0

    def error(self, teacher: Teacher, vectors: Vectors, batch: int) -> float:
        return 1 - self.explained(teacher, vectors)


def test_a_stop_before_the_first_step_has_nothing_to_keep(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopToken()
    monkeypatch.setattr(name_weight, "Context", SimpleNamespace(of=lambda *_: stop.stop(save=True)))
    with pytest.raises(Interrupted):
        estimate(replace(EMPHASISED, part="U-Net", typed_weight=0.0), toy_host, stop=stop)


@pytest.mark.slow
def test_previews_are_typed_with_the_weights_that_are_tried(toy_host: ToyHost, few_trials: None) -> None:
    seen: list[float] = []
    result = estimate(
        replace(EMPHASISED, typed_weight=0.0, preview_every=10),
        toy_host,
        Listener(on_preview=lambda teacher, vectors, step: seen.append(teacher.task.typed_weight)),
    )
    assert result.typed_weight in seen and 1.0 in seen  # the finalists in turn
    assert len(seen) == 2 * len(set(seen)) <= 2 * (name_weight.FINALISTS + 1)


@pytest.mark.slow
def test_a_weight_that_does_harm_among_other_words_is_not_taken(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = Judged(lambda teacher, vectors: -abs(teacher.task.typed_weight - 1))
    monkeypatch.setattr(name_weight, "Context", SimpleNamespace(of=lambda *_: judged))
    seen: list[Progress] = []
    result = estimate(replace(EMPHASISED, typed_weight=0.0), toy_host, Listener(on_progress=seen.append))
    assert result.typed_weight == 1
    weighing = [progress for progress in seen if progress.phase == "weigh"]
    assert weighing[-1].done == weighing[-1].total


def test_an_emphasis_mode_that_reads_no_weights_takes_none(toy_host: ToyHost) -> None:
    toy_host.model.info = replace(toy_host.model.info, emphasis="Ignore")
    with pytest.raises(SettingsError, match=r"typed_weight=1\.2: the emphasis mode Ignore reads no weights"):
        run(toy_host, typed_weight=1.2)


@pytest.mark.slow
def test_a_weight_found_harmful_in_the_end_is_not_kept(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Harmless after the trials, harmful when trained to the end; a stop comes while the second finalist is judged."""
    to_the_end = False
    harmful: list[float] = []

    def noted(training: Training, objective: Objective[Any], space: VectorSpace, watch: Watch) -> None:
        nonlocal to_the_end
        to_the_end = objective.phase.steps > name_weight.TRIAL_STEPS
        train(training, objective, space, watch)

    def explained(teacher: Teacher, vectors: Vectors) -> float:
        weight = teacher.task.typed_weight
        if to_the_end and weight != 1 and weight not in harmful:
            if harmful:
                raise Stopped
            harmful.append(weight)
        return 1.0 if weight == 1 or not to_the_end else 0.0

    monkeypatch.setattr(name_weight, "train", noted)
    monkeypatch.setattr(name_weight, "Context", SimpleNamespace(of=lambda *_: Judged(explained)))
    result = run(toy_host, text="(red:1.4) (circle:1.2)", typed_weight=0.0, learning_steps=60)
    assert result.stopped == "interrupted" and harmful and result.typed_weight not in harmful


@pytest.mark.slow
def test_the_time_of_the_trials_is_told_where_the_number_is_open_too(toy_host: ToyHost, few_trials: None) -> None:
    result = run(toy_host, typed_weight=0.0, tokens=0, part="U-Net")
    assert result.seconds_train > result.seconds_prepare
