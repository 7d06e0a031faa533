"""The weight that a name is typed with: given, solved for, and told by the file."""

import math
from dataclasses import replace
from typing import Any

import pytest
from toy import ToyHost

from embedding_estimate import typed
from embedding_estimate.errors import SettingsError
from embedding_estimate.names import typed_name
from embedding_estimate.settings import Settings
from embedding_estimate.trainer import Estimate, estimate

EMPHASISED = Settings(text="(red circle:1.3)", name="madeup", tokens=2, steps=4, learning_steps=20)


def run(host: ToyHost, **values: Any) -> Estimate:
    return estimate(replace(EMPHASISED, **values), host)


def test_what_is_typed() -> None:
    assert typed_name("it", 1.0) == "it" and typed_name("it", 1.25) == "(it:1.25)"


def test_vectors_are_made_for_the_weight_that_is_given(toy_host: ToyHost) -> None:
    """The toy's weights act as the prompt's own, so that typing the words with them is the prompt."""
    result = run(toy_host, typed_weight=1.3)
    assert result.typed_weight == result.embedding.provenance["typed_weight"] == 1.3
    assert result.fidelity and result.fidelity.explained == pytest.approx(1)
    assert result.fidelity.explained_bare == pytest.approx(result.fidelity.explained_without_weights)


def test_the_weight_is_solved_for(toy_host: ToyHost) -> None:
    result = run(toy_host, typed_weight=0.0)
    assert result.typed_weight == result.embedding.provenance["typed_weight"] != 1
    assert result.fidelity and result.fidelity.typed_weight == result.typed_weight
    bare = run(toy_host).fidelity
    assert bare and result.fidelity.explained > bare.explained


def test_previews_are_typed_with_the_weight_that_was_found(toy_host: ToyHost) -> None:
    seen: list[float] = []
    result = estimate(
        replace(EMPHASISED, typed_weight=0.0, preview_every=10),
        toy_host,
        on_preview=lambda teacher, vectors, step: seen.append(teacher.task.typed_weight),
    )
    assert seen == [result.typed_weight] * 2


def test_a_weight_that_does_harm_among_other_words_is_not_taken(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typed, "inside", lambda *_: lambda teacher, vectors: -abs(teacher.task.typed_weight - 1))
    assert run(toy_host, typed_weight=0.0).typed_weight == 1


def test_an_emphasis_mode_that_reads_no_weights_takes_none(toy_host: ToyHost) -> None:
    toy_host.model.info = replace(toy_host.model.info, emphasis="Ignore")
    with pytest.raises(SettingsError, match=r"typed_weight=1\.2: the emphasis mode Ignore reads no weights"):
        run(toy_host, typed_weight=1.2)


@pytest.mark.parametrize("told", [None, 0, 0.0, -1, 3, math.nan, math.inf, "1.2", True, [1.2], {}])
def test_a_file_that_tells_no_weight_means_the_bare_name(told: Any) -> None:
    assert typed.told({"typed_weight": told}) == typed.told({}) == 1.0


@pytest.mark.parametrize("told", [1.2, 0.9, 2])
def test_a_file_tells_its_weight(told: float) -> None:
    assert typed.told({"typed_weight": told}) == told
