"""The figures over N, on the toy host."""

from dataclasses import replace
from typing import Any

import pytest
from toy import ToyHost

from embedding_estimate.errors import Interrupted, ModelError, SettingsError
from embedding_estimate.estimation.curve import curve, numbers, variants
from embedding_estimate.fidelity import quick
from embedding_estimate.model.host import BorrowedModel, Vectors
from embedding_estimate.progress import OnProgress, Progress, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.teacher import Task

SETTINGS = Settings(text="red (circle:1.8)", name="curve", steps=4, learning_steps=60)


@pytest.mark.slow
def test_more_vectors_explain_more(toy_host: ToyHost) -> None:
    heard: dict[int, list[str]] = {1: [], 2: []}

    def listener(tokens: int) -> OnProgress:
        return lambda progress: heard[tokens].append(progress.phase)

    settings = replace(SETTINGS, text="(blue:0.5) star")
    points = list(curve(settings, toy_host, [1, 2], on_progress=listener, stop=StopToken()))
    assert [point.tokens for point in points] == [1, 2]
    assert points[0].fidelity.explained < points[1].fidelity.explained
    assert points[0].fidelity.image_distance is None and points[0].seconds > 0
    assert set(heard[1]) == set(heard[2]) == {"prepare", "train", "measure"}


@pytest.mark.slow
def test_all_points_are_of_one_model(toy_host: ToyHost) -> None:
    points = curve(SETTINGS, toy_host, [1, 2], stop=StopToken())
    next(points)
    toy_host.model.info = replace(toy_host.model.info, name="another")
    with pytest.raises(ModelError, match="the model was toy and is another now"):
        next(points)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["prepare", "train", "measure"])
@pytest.mark.parametrize("save", [True, False])
def test_a_stop_leaves_the_points_that_are_whole(toy_host: ToyHost, phase: str, save: bool) -> None:
    stop, points = StopToken(), []

    def listener(tokens: int) -> OnProgress:
        def hear(progress: Progress) -> None:
            if tokens == 2 and progress.phase == phase:
                stop.stop(save=save)

        return hear

    def draw() -> None:
        for point in curve(SETTINGS, toy_host, [1, 2, 3], on_progress=listener, stop=stop):
            points.append(point.tokens)

    if save:
        draw()
    else:
        with pytest.raises(Interrupted):
            draw()
    assert points == [1] and not toy_host.lent


def test_numbers_go_to_twice_the_prompts_own_within_a_chunk(toy_host: ToyHost) -> None:
    def tried(text: str) -> list[int]:
        return numbers(replace(SETTINGS, text=text), toy_host, StopToken())

    assert tried("red") == [1, 2] and tried("red (circle:1.8)") == [1, 2, 4]
    assert tried("a red circle") == [1, 2, 3, 4]  # a chunk holds four


def test_every_n_is_checked_before_the_first(toy_host: ToyHost) -> None:
    with pytest.raises(SettingsError) as raised:
        variants(replace(SETTINGS, steps=0), [1, 0, 76])
    zero, many, steps = raised.value.problems
    assert zero == "N=0 is out of range: choose 1 to 75" and many.startswith("N=76 ") and steps.startswith("steps=0")
    with pytest.raises(SettingsError, match="a curve sets the number itself"):
        variants(Settings(text="red", name="x1", token_source="Initial prompt", initial_prompt="red"), [1])


@pytest.mark.slow
def test_a_number_that_cannot_be_measured_is_no_end(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    real = quick.measure

    def measure(model: BorrowedModel, task: Task, vectors: Vectors, **options: Any) -> Any:
        if len(vectors["clip_l"]) == 2:
            raise RuntimeError("device-side assert")
        return real(model, task, vectors, **options)

    monkeypatch.setattr(quick, "measure", measure)
    points = curve(SETTINGS, toy_host, [1, 2], stop=StopToken())
    next(points)
    with pytest.raises(ModelError, match="N = 2: not measured, the model failed: RuntimeError: device-side assert"):
        next(points)
