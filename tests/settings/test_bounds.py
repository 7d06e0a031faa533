"""Texts have bounds that are looked at before they are read, and no refusal is longer than a few lines."""

from __future__ import annotations

from typing import Any

import pytest
from toy import ToyHost, ToyModel

from embedding_estimate import errors
from embedding_estimate.checks import advice, embedding_words, foreign_syntax
from embedding_estimate.errors import FEW, Interrupted, SettingsError, nearest, quoted
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.files import names, provenance
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import (
    LONGEST_NAME,
    LONGEST_PROMPT,
    MOST_LINES,
    PARAMETERS,
    Parameter,
    Settings,
    parameters,
)

GOOD: dict[str, Any] = {"text": "(red:1.5) circle", "name": "madeup"}
TEXTS = [parameter for parameter in PARAMETERS if parameter.longest]
LINE = 700  # characters that a refusal may have: the longest names all settings


def refusals(values: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        Settings.from_mapping(GOOD | values).check()
    return raised.value.problems


def test_every_text_has_a_bound() -> None:
    free = {parameter.name for parameter in PARAMETERS if parameter.kind is str and not parameter.choices}
    assert free - {"name"} == {parameter.name for parameter in TEXTS}  # a name has rules of its own


@pytest.mark.parametrize("parameter", TEXTS, ids=lambda parameter: parameter.name)
def test_a_text_may_be_as_long_as_its_bound(parameter: Parameter) -> None:
    assert parameter.longest is not None
    longest = ("{}" * parameter.longest)[: parameter.longest]
    assert Settings.from_mapping({**GOOD, parameter.name: longest}).problems() == []
    [line] = refusals({parameter.name: longest + "x"})
    expected = {LONGEST_PROMPT: "100,001 characters: 100,000", LONGEST_NAME: "101 characters: 100"}
    assert line == f"{parameter.name} has {expected[parameter.longest]} are allowed; shorten it"


@pytest.mark.parametrize("name", ["other_prompt", "templates"])
def test_a_setting_of_lines_takes_so_many(name: str) -> None:
    negative = {"prompt_type": "Negative Prompt"}
    assert Settings.from_mapping({**GOOD, **negative, name: "{}\n \n" * MOST_LINES}).problems() == []
    assert refusals({**negative, name: "{}\n" * (MOST_LINES + 1)}) == [
        f"{name} has 201 lines: 200 are allowed; leave some out"
    ]


def test_a_text_that_is_too_long_is_refused_before_anything_reads_it() -> None:
    """Where settings are made, so that neither a host's comments nor a tokenizer sees it."""
    with pytest.raises(SettingsError, match="templates has 1,000,000 characters"):
        Settings.from_mapping({**GOOD, "templates": "x" * 1_000_000})
    assert Settings(text="x" * 1_000_000, name="madeup").problems() == [
        "text has 1,000,000 characters: 100,000 are allowed; shorten it"
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"text": ["x" * 100_000] * 1000},
        {"part": "x" * 1_000_000},
        {"tokens": "9" * 1_000_000},
        {"tokens": 10**5000},
        {"overwrite": {"x" * 1000: "x" * 1000}},
        {"name": "x" * 1_000_000},
        {"name": " " * 1_000_000},
        {"name": "AND " * 30 + "AND"},
        {"templates": "x" * 90_000},
        {"x" * 1_000_000: 1},
    ],
    ids=lambda values: "-".join(values)[:12],
)
def test_refusals_are_short(values: dict[str, Any]) -> None:
    lines = refusals(values)
    assert len(lines) <= 2 and all(len(line) <= LINE for line in lines)


def test_a_hundred_thousand_unknown_names_are_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def counting(value: str, choices: object) -> str:
        compared.append(value)
        return "choose"

    monkeypatch.setattr(parameters, "nearest", counting)
    lines = refusals({f"key{number}": 1 for number in range(100_000)})
    assert len(compared) == FEW and len(lines) == FEW + 1
    assert lines[0] == "'key0' is not a setting: choose"
    assert lines[-1] == "99,995 more names are not settings: leave them out"


def test_a_long_name_is_compared_by_its_beginning() -> None:
    assert nearest("optimizr", ["optimizer", "part"]) == "did you mean optimizer?"
    assert nearest("x" * 10_000_000, ["optimizer", "part"]) == "choose from optimizer, part"


def test_a_quoted_value_is_short_and_on_one_line() -> None:
    assert quoted("a\nb") == "'a\\nb'" and quoted("\ud800") == "'\\ud800'" and quoted(1.5) == "1.5"
    long = quoted("a" * 5000 + "z")
    assert len(long) == errors.QUOTED and long.startswith("'aaa") and "..." in long and long.endswith("z'")
    assert quoted(10**5000) == "a number of 16,610 bits"
    assert quoted(list(range(100_000))) == "[0, 1, 2, 3, 4, 5, ...]"


def test_settings_of_the_longest_texts_fit_into_a_file() -> None:
    """Each character of these takes twelve in JSON."""
    longest: dict[str, Any] = {parameter.name: "\U0001f600" * (parameter.longest or 0) for parameter in TEXTS}
    told = Settings(**{**longest, "name": "madeup"}).to_dict()
    assert provenance.read(provenance.written("madeup", {"settings": told}))["settings"] == told


def test_a_name_in_the_way_of_thousands_is_told_in_a_few_lines_and_looked_up_once_each() -> None:
    asked: list[str] = []

    def token_ids(text: str) -> list[int]:
        asked.append(text)
        return [ord(character) for character in text if character != " "]

    others = [f"xq{number}" for number in range(4000)]
    found = names.warnings("xq", token_ids, others)
    assert len(asked) == len(set(asked)) == len(others) + 2
    assert len(found) == FEW + 1 and found[0].startswith("xq: begins xq0")
    assert found[-1] == "3,995 more embeddings collide with xq in this way; rename it"


@pytest.mark.parametrize(
    "text",
    ["(a:" + "1" * 99_000, "1" * 99_000 + "x", "{" + "|" * 99_000, "/__a" * 24_000, "_neg" * 24_000 + ".x"],
    ids=lambda text: text[:5],
)
def test_the_longest_texts_have_nothing_of_other_programs(text: str) -> None:
    """Where a run of characters were divided in all ways between two parts of a pattern, this would take minutes."""
    assert foreign_syntax.notes(text, composed=True) == []
    assert embedding_words.missing([text], []) == []


def test_words_that_look_like_missing_embeddings_are_told_in_a_few_lines(toy: ToyModel) -> None:
    many = Settings(**GOOD | {"text": " ".join(f"bad-hands-{number}" for number in range(1000))})
    lines = advice.of_prompts(many, toy)
    assert len(lines) == FEW + 1 and lines[0].startswith("bad-hands-0 looks like the name of an embedding")
    assert lines[-1] == "995 more words look like names of embeddings that are not loaded"


@pytest.mark.parametrize("at", [1, 30, 51])
def test_a_stop_is_heard_between_two_prompts(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Fifty templates are encoded before anything else, and each may be long."""
    stop, encoded = StopToken(), []
    encode = toy_host.model.encode

    def counting(prompt: str, **options: Any) -> object:
        encoded.append(prompt)
        if len(encoded) == at:
            stop.stop(save=True)
        return encode(prompt, **options)

    monkeypatch.setattr(toy_host.model, "encode", counting)
    templates = "\n".join(f"{'a ' * number}{{}}" for number in range(50))
    with pytest.raises(Interrupted, match="before there was anything to save"):
        estimate(Settings(**GOOD, tokens=2, templates=templates, measure="Nothing"), toy_host, stop=stop)
    assert len(encoded) == at and not toy_host.lent
