"""What is told before the work, and that it is told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from toy import ToyHost, ToyModel

from embedding_estimate.checks import advice
from embedding_estimate.errors import PromptError
from embedding_estimate.estimation.curve import curve
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.objectives.prompts import SCHEDULED, check_text
from embedding_estimate.progress import Progress, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

TRANSFORMER = (
    "part='Transformer' cannot carry the weights of the text in Stable Diffusion 1: choose Attention, or typed_weight=0"
)


def settings(**values: Any) -> Settings:
    return Settings(**{"text": "red (circle:1.8)", "name": "madeup", "templates": "{}", "tokens": 2, **values})


def of_training(model: ToyModel, **values: Any) -> list[str]:
    chosen = settings(**values)
    return advice.of_training(chosen, Teacher(model, Task.of(chosen, model)))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, True),
        ({"part": "Attention"}, False),
        ({"text": "red circle star"}, False),
        ({"typed_weight": 1.2}, False),
        ({"typed_weight": 0.0}, False),
    ],
)
def test_the_transformer_part_carries_no_weights(toy: ToyModel, values: dict[str, Any], told: bool) -> None:
    assert of_training(toy, **{"part": "Transformer", **values}) == ([TRANSFORMER] if told else [])


@pytest.mark.parametrize(("family", "told"), [("sd1", True), ("sd2", True), ("sdxl", False)])
def test_in_sdxl_it_does(toy: ToyModel, family: Any, told: bool) -> None:
    toy.info = replace(toy.info, family=family)
    expected = TRANSFORMER.replace("Diffusion 1", f"Diffusion {family[-1]}")
    assert of_training(toy, part="Transformer") == ([expected] if told else [])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"initial_prompt": "star"}, []),
        (
            {"initial_prompt": "(star:1.3)"},
            ["initial_prompt: its weights have no effect, because only the vectors of its tokens are used"],
        ),
        ({"initial_prompt": "star AND cat"}, ["initial_prompt: AND and schedules are read as plain words here"]),
        ({"initial_prompt": "[star:cat:2]"}, ["initial_prompt: AND and schedules are read as plain words here"]),
        ({"text": "[red:blue:3]"}, [SCHEDULED]),
        (
            {"text": "red AND blue", "part": "U-Net", "templates": "{}\na {}"},
            ["templates: a text with AND or a part weight is trained alone, as {}; other templates have no effect"],
        ),
        ({"text": "red AND blue", "part": "U-Net", "templates": Settings.templates}, []),
        ({"text": "a " * 16}, []),
        (
            {"text": "a " * 17},
            [
                "tokens=2: the text has 17 tokens, more than 8 for each vector, so most of the effect of its weights "
                "may be lost; use more vectors, or 0 for one per token"
            ],
        ),
        ({"text": "a " * 17, "tokens": 0}, []),
        ({"early_stop": 2, "learning_steps": 30, "part": "Transformer", "text": "red blue star"}, []),
        (
            {"early_stop": 3, "learning_steps": 30, "part": "Transformer", "text": "red blue star"},
            ["early_stop=3: there are 3 checks in all, so it will not stop early; choose a smaller number"],
        ),
        (
            {"early_stop": 12},
            ["early_stop=12: there are 12 checks in all, so it will not stop early; choose a smaller number"],
        ),  # in 120 steps
        ({"early_stop": 3, "part": "U-Net"}, []),
        (
            {"early_stop": 4, "part": "U-Net"},
            ["early_stop=4: there are 4 checks in all, so it will not stop early; choose a smaller number"],
        ),
        (
            {"part": "Transformer", "text": "red blue star", "width": 64},
            ["width: no effect here, because the Transformer part uses no latents"],
        ),
        ({"part": "Transformer", "text": "red blue star", "width": 64, "preview_every": 5}, []),  # whose size it is
    ],
)
def test_what_training_will_do_is_told(toy: ToyModel, values: dict[str, Any], told: list[str]) -> None:
    assert of_training(toy, **values) == told


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"text": "red++ circle"}, ["red++ is read as words here"]),
        ({"other_prompt": "red++ circle"}, ["other_prompt: red++ is read as words here"]),
        ({"initial_prompt": "red++ circle"}, ["initial_prompt: red++ is read as words here"]),
        ({"templates": "{}\nred++, {}"}, ["templates: red++ is read as words here"]),
        ({"text": "red AND blue :0.5"}, []),
        (
            {"text": "red AND blue:0.5", "prompt_type": "Negative Prompt", "other_prompt": "a AND b:0.5"},
            [
                "blue:0.5 is read as words here",
                "AND is read as a plain word in a negative prompt; it combines prompts only in a positive one",
            ],
        ),
        (
            {"other_prompt": "red AND blue"},
            [
                "other_prompt: AND is read as a plain word in a negative prompt; it combines prompts only in a "
                "positive one"
            ],
        ),
        ({"sampler": "DPM++ SDE"}, ["sampler: no effect here, because the Attention part always uses Euler"]),
    ],
)
def test_what_the_settings_alone_tell(values: dict[str, Any], told: list[str]) -> None:
    found = advice.of_settings(settings(**values))
    assert [line[: len(expected)] for line, expected in zip(found, told, strict=True)] == told


def test_words_that_look_like_an_embedding_are_told_where_there_is_none(toy: ToyModel) -> None:
    chosen = settings(text="red, (bad-hands-5:1.2)", templates="EasyNegative, {}")
    rest = "looks like the name of an embedding, but no such embedding is loaded: it is read as plain words"
    told = [f"{name} {rest}" for name in ("bad-hands-5", "EasyNegative")]
    assert advice.of_prompts(chosen, toy) == told
    toy.names = ["Bad-Hands-5"]
    assert advice.of_prompts(chosen, toy) == told[1:]


@pytest.mark.parametrize("emphasis", ["Ignore", "None"])
def test_weights_are_nothing_where_the_host_applies_none(toy: ToyModel, emphasis: str) -> None:
    toy.info = replace(toy.info, emphasis=emphasis)
    told = [f"the emphasis mode {emphasis} applies no weights: the weights in the text have no effect"]
    assert advice.of_prompts(settings(), toy) == told
    assert advice.of_prompts(settings(text=r"red \(circle\)"), toy) == []


def test_ordinary_settings_are_told_nothing(toy: ToyModel) -> None:
    for text in ("red (circle:1.8)", "a photo of a cat, 4:3", "1girl, solo, :3"):
        chosen = settings(text=text, templates=Settings.templates)
        assert advice.of_job(chosen, Teacher(toy, Task.of(chosen, toy))) == []


def heard(host: ToyHost, chosen: Settings) -> tuple[list[str], list[str]]:
    """What happened in turn, and the result's notes."""
    events: list[str] = []

    def on_progress(progress: Progress) -> None:
        events.append(progress.phase)

    def on_notes(notes: Sequence[str]) -> None:
        events.extend(notes)

    result = estimate(chosen, host, Listener(on_notes=on_notes, on_progress=on_progress), beside=["madeup-two"])
    return events, result.notes


def test_notes_come_before_the_work_and_once_in_the_result(toy_host: ToyHost) -> None:
    chosen = settings(part="Transformer", learning_steps=3, measure="Nothing", batch=1, text="[red:blue:3], (a:1.5)")
    events, notes = heard(toy_host, chosen)
    told = events[: events.index("train")]
    assert notes == told and len(told) == len(set(told))
    assert [line for line in told if "madeup-two" in line] and TRANSFORMER in told and SCHEDULED in told
    assert "batch: no effect here, because the Transformer part uses no latents" in told


@pytest.mark.slow
def test_a_curve_is_told_before_its_first_number_and_nothing_of_names_and_files(toy_host: ToyHost, brief: None) -> None:
    chosen = settings(name="red", save_every=1000, sampler="DPM++ SDE", steps=3, learning_steps=3)
    told: list[str] = []
    points = curve(chosen, toy_host, [1], on_notes=told.extend, stop=StopToken())
    assert next(points).tokens == 1
    assert told == ["sampler: no effect here, because the Attention part always uses Euler"]


def test_a_schedule_that_is_empty_at_every_step_is_refused(toy: ToyModel) -> None:
    trajectory = Trajectory("Euler", "Karras", 4, 7.0)
    for text, empty in (("[::2]", True), (" AND ", True), ("[red::2]", False), ("[:red:2]", False)):
        teacher = Teacher(toy, Task(text, False, ("",), 32, 32))
        if not empty:
            check_text(teacher, trajectory)
            continue
        with pytest.raises(PromptError, match="does what the empty prompt does"):
            check_text(teacher, trajectory)
