"""Every parameter is declared once, and whatever is typed is either valid or told line by line."""

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from click import Option
from hypothesis import given
from hypothesis import strategies as st

from embedding_estimate.cli import main
from embedding_estimate.errors import SettingsError
from embedding_estimate.settings import PARAMETERS, Parameter, Settings
from embedding_estimate.teaching.plan import phases

GOOD: dict[str, Any] = {"text": "(red:1.5) circle", "name": "madeup"}
NUMBERS = [p for p in PARAMETERS if p.minimum is not None]
CHOICES = [p for p in PARAMETERS if p.choices]


def problems(**values: object) -> list[str]:
    return Settings.from_mapping({**GOOD, **values}).problems()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"optimizer": "Rprop"}, "optimizer='Rprop' is no longer offered: choose Automatic"),
        ({"optimizer": "nadam"}, "optimizer='nadam' is no longer offered: choose Automatic"),
        ({"scheduler": "plateau"}, "scheduler='plateau' is no longer offered: choose constant"),
        (
            {"scheduler": "cosine with restarts"},
            "scheduler='cosine with restarts' is no longer offered: choose constant",
        ),
    ],
)
def test_a_choice_of_earlier_versions_has_a_line_of_its_own(values: dict[str, str], line: str) -> None:
    assert Settings.from_mapping({"text": "red", "name": "madeup", **values}).problems() == [line]


def test_the_defaults_need_a_text_and_a_name_and_nothing_else() -> None:
    assert Settings(**GOOD).problems() == []
    lines = Settings().problems()
    assert len(lines) == 2 and lines[0].startswith("text is empty") and lines[1].startswith("name=''")


@pytest.mark.parametrize("parameter", NUMBERS, ids=lambda p: p.name)
def test_bounds_hold_at_both_ends(parameter: Parameter) -> None:
    for bound, step in ((parameter.minimum, -1), (parameter.maximum, 1)):
        bound = parameter.kind(bound)
        assert parameter.problem(bound) is None
        line = parameter.problem(bound + step)
        assert line is not None and f"{parameter.name}=" in line and "out of range: choose" in line


@pytest.mark.parametrize("parameter", CHOICES, ids=lambda p: p.name)
def test_choices_are_taken_and_others_get_the_nearest(parameter: Parameter) -> None:
    for choice in parameter.choices:
        assert parameter.problem(choice) is None
    line = parameter.problem(parameter.choices[0] + "x")
    assert line is not None and parameter.choices[0] in line and "did you mean" in line


@pytest.mark.parametrize("parameter", CHOICES, ids=lambda p: p.name)
def test_choices_are_taken_in_any_case(parameter: Parameter) -> None:
    for choice in parameter.choices:
        for typed in (choice.upper(), choice.lower()):
            assert getattr(Settings.from_mapping({parameter.name: typed}), parameter.name) == choice
    assert Settings.from_mapping({parameter.name: 3}) == Settings(**{parameter.name: cast(Any, 3)})


@pytest.mark.parametrize(
    "value", [True, 1.5, "8", None, float("nan"), float("inf"), [8], pytest.param(10**400, id="huge")]
)
def test_a_whole_number_is_nothing_else(value: object) -> None:
    assert len(problems(tokens=value)) == 1


def test_a_float_takes_whole_numbers() -> None:
    settings = Settings.from_mapping({**GOOD, "rate": 1})
    assert settings.problems() == [] and isinstance(settings.rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": " \n"}, "text is empty"),
        ({"templates": "a {}\nb"}, "template 'b' has no {}"),
        ({"use": "Alone", "templates": "{}\na {}"}, "use='Alone' trains without other words"),
        ({"prompt_type": "Negative Prompt", "guidance_scale": 1.0}, "ignores the negative prompt"),
        ({"other_prompt": "a\nb"}, "the negative prompt is one line"),
        ({"token_source": "Initial prompt"}, "needs an initial_prompt"),
        ({"optimizer": "LBFGS", "scheduler": "cosine"}, "LBFGS finds its own step length"),
        ({"name": "a:b"}, "name='a:b'"),
    ],
)
def test_contradictions_are_told(values: dict[str, Any], message: str) -> None:
    (line,) = problems(**values)
    assert message in line


def test_all_problems_are_told_at_once() -> None:
    wrong = {"text": " ", "name": "a:b", "templates": "x", "tokens": -1, "loss": "x", "rate": -1.0}
    with pytest.raises(SettingsError) as raised:
        Settings.from_mapping(wrong).check()
    assert len(raised.value.problems) == 6 == len(str(raised.value).splitlines())


@pytest.mark.parametrize(
    ("name", "value"),
    [("text", 5), ("templates", 5), ("name", 5), ("optimizer", "x"), ("scheduler", "x"), ("part", "x")],
)
def test_a_value_that_is_wrong_itself_contradicts_nothing(name: str, value: object) -> None:
    contradictory = {"optimizer": "LBFGS", "scheduler": "cosine"}
    lines = problems(**(contradictory if name in (*contradictory, "part") else {}) | {name: value})
    assert len(lines) == 1 and lines[0].startswith(f"{name}=")


@pytest.mark.parametrize(
    ("values", "stages"),
    [
        ({}, [("Sketch", 20), ("Attention", 60)]),
        ({"part": "Attention + U-Net"}, [("Sketch", 20), ("Attention", 60), ("U-Net", 80)]),
        ({"part": "Attention + U-Net", "learning_steps": 30}, [("Sketch", 20), ("Attention", 10), ("U-Net", 15)]),
        ({"learning_steps": 20}, [("Attention", 20)]),
        ({"optimizer": "Adam"}, [("Attention", 160)]),
        ({"use": "Alone"}, [("Sketch", 20), ("Attention", 120)]),
        ({"use": "Alone", "part": "U-Net"}, [("U-Net", 160)]),
        ({"part": "U-Net"}, [("U-Net", 160)]),
        ({"part": "U-Net", "optimizer": "SGD"}, [("U-Net", 270)]),
    ],
)
def test_parts_follow_each_other_on_the_steps_given(values: dict[str, Any], stages: list[tuple[str, int]]) -> None:
    settings = Settings(**GOOD, **values)
    assert [(phase.part, phase.steps) for phase in phases(settings)] == stages


def test_a_weight_is_solved_for_once() -> None:
    settings = Settings(**GOOD, part="Attention + U-Net", typed_weight=0.0)
    assert [phase.part for phase in phases(settings) if phase.finds_weight] == ["Attention"]


def test_names_that_are_no_settings_get_the_nearest() -> None:
    with pytest.raises(SettingsError, match="'token' is not a setting: did you mean tokens"):
        Settings.from_mapping({"token": 3})


def values() -> Iterator[st.SearchStrategy]:
    yield from (st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers()))
    yield st.integers(min_value=10**300)
    yield from (st.sampled_from(parameter.choices) for parameter in CHOICES)
    yield from (st.sampled_from([parameter.minimum, parameter.maximum]) for parameter in NUMBERS)


@given(
    st.dictionaries(
        st.one_of(st.sampled_from([p.name for p in PARAMETERS]), st.text()), st.one_of(*values()), max_size=8
    )
)
def test_any_mapping_is_valid_or_told(mapping: dict[str, Any]) -> None:
    try:
        settings = Settings.from_mapping({**GOOD, **mapping})
        settings.check()
    except SettingsError as error:
        assert error.problems and all(isinstance(line, str) and line for line in error.problems)
    else:
        assert Settings.from_mapping(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.name)
def test_the_command_line_agrees(parameter: Parameter) -> None:
    (option,) = (p for p in main.commands["estimate"].params if p.name == parameter.name)
    if not isinstance(option, Option):
        assert parameter.name == "text"
        return
    assert f"--{parameter.name.replace('_', '-')}" in option.opts and option.default is None
    assert option.help is not None and parameter.help in option.help
    for fact in (*parameter.choices, parameter.unit):
        assert fact in option.help
    if parameter.kind is not bool:
        for choice in parameter.choices:
            assert option.type.convert(choice.upper(), None, None) == choice
        if parameter.minimum is not None:
            assert option.type.convert(f"{parameter.minimum:g}", None, None) == parameter.minimum
        assert option.type.convert("?", None, None) == "?"  # judged by Settings alone
