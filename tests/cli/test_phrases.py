"""One word for each weight on the command line: what is printed, inspected and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import QUICK, Run, files, last
from suites import quick_first

from embedding_estimate.files import embedding as embeddings
from embedding_estimate.files.embedding import read

TEXT = "(red:1.5) (blue:1.5) circle"
PHRASE = "(it-a:1.5) it-b"
pytestmark = pytest.mark.usefixtures("brief")


@pytest.fixture
def made(run: Run, tmp_path: Path) -> Path:
    """The folder with the two words of an estimate."""
    result = run("estimate", TEXT, "--words", "one per weight", "--name", "it", *QUICK, "--measure", "Nothing")
    assert result.exit_code == 0, result.output
    return tmp_path / "embeddings"


def test_estimate_says_what_to_type(run: Run, tmp_path: Path) -> None:
    result = run("estimate", TEXT, "--words", "one per weight", "--name", "it", *QUICK, "--json")
    assert result.exit_code == 0, result.output
    paths = [str(Path("embeddings", f"it-{letter}.safetensors")) for letter in "ab"]
    told = last(result)
    assert (told["name"], told["phrase"], told["path"], told["paths"]) == ("it", PHRASE, paths[0], paths)
    assert (told["tokens"], told["typed_weight"]) == (2, 1)
    assert result.stdout.startswith(f"{', '.join(paths)}: 2 vectors, typed as {PHRASE}\n")
    assert files(tmp_path) == ["embeddings", *paths]
    assert read(tmp_path / paths[1]).provenance["fidelity"]["explained"] == told["explained"]


def test_as_few_words_as_needed_tell_what_was_tried(run: Run, tmp_path: Path) -> None:
    few = ("--words", "as few as needed", "--emphasis-goal", "0")
    result = run("estimate", TEXT, *few, "--name", "it", *QUICK, "--measure", "Nothing", "--json")
    assert result.exit_code == 0, result.output
    told = last(result)
    numbers = [one["words"] for one in told["words_tried"]]
    assert numbers == list(range(1, len(told["paths"]) + 1))
    assert any(line.startswith(f"number of words: {numbers[-1]}; emphasis explained by each") for line in told["notes"])
    assert f"1: {told['words_tried'][0]['emphasis']:.2f}" in result.stdout


def test_one_word_has_a_phrase_too(run: Run) -> None:
    told = last(run("estimate", "(red:1.5)", "--typed-weight", "1.2", "--name", "it", *QUICK, "--json"))
    assert (told["phrase"], told["paths"]) == ("(it:1.2)", [told["path"]])


def test_a_taken_name_of_a_word_is_told(run: Run, made: Path) -> None:
    before = files(made)
    result = run("estimate", TEXT, "--words", "one per weight", "--name", "it", *QUICK)
    assert result.exit_code == 2 or result.exit_code == 1
    assert "it-a: it-a.safetensors has this name already; choose another or overwrite it" in result.stderr
    assert files(made) == before
    again = run("estimate", TEXT, "--words", "one per weight", "--name", "it", "--overwrite", *QUICK, "--seed", "4")
    assert again.exit_code == 0 and files(made) == before


def test_inspect_says_what_to_type(run: Run, made: Path) -> None:
    result = run("inspect", "embeddings/it-b.safetensors", "--json")
    assert result.stdout.startswith(f"it-b: takes 1 of a prompt's tokens, typed as {PHRASE}\n")
    told = last(result)
    assert (told["name"], told["tokens"], told["typed_weight"], told["phrase"]) == ("it-b", 1, 1, PHRASE)
    first = last(run("inspect", "embeddings/it-a.safetensors", "--json"))
    assert (first["typed_weight"], first["phrase"]) == (1.5, PHRASE)


def test_compare_measures_all_words(run: Run, tmp_path: Path) -> None:
    whole = last(
        run("estimate", TEXT, "--words", "one per weight", "--name", "it", *QUICK, "--measure", "full", "--json")
    )
    for letter in "ab":
        result = run("compare", f"embeddings/it-{letter}.safetensors", TEXT, "--measure", "Full", "--json")
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"{PHRASE} (2 vectors) compared with {TEXT}")
        told = last(result)
        assert (told["phrase"], told["tokens"]) == (PHRASE, 2)
        for figure in ("explained", "emphasis_explained", "explained_in_context"):
            assert told[figure] == pytest.approx(whole[figure], abs=1e-4)


def test_compare_measures_one_word_where_its_weight_is_given(run: Run, made: Path) -> None:
    result = run("compare", "embeddings/it-a.safetensors", TEXT, "--measure", "Full", "--typed-weight", "1.5", "--json")
    told = last(result)
    assert (told["phrase"], told["tokens"], told["typed_weight"]) == ("(it-a:1.5)", 1, 1.5)


def test_compare_says_which_word_is_missing(run: Run, made: Path) -> None:
    (made / "it-b.safetensors").rename(made / "away.safetensors")
    result = run("compare", "embeddings/it-a.safetensors", TEXT, "--measure", "Full")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith(
        f"it-a.safetensors: is one word of {PHRASE}, but it-b.safetensors is not in the same folder; put it there, or "
        "give --typed-weight to measure this word alone"
    )


def test_inspect_says_which_word_is_missing(run: Run, made: Path) -> None:
    assert run("inspect", "embeddings/it-a.safetensors").stderr == ""
    (made / "it-b.safetensors").rename(made / "away.safetensors")
    result = run("inspect", "embeddings/it-a.safetensors")
    assert result.exit_code == 0
    assert result.stderr == (
        f"Note: it-a.safetensors: is one word of {PHRASE}, but it-b.safetensors is not in the same folder; put it "
        "there\n"
    )
    assert run("inspect", "embeddings/away.safetensors").stderr == ""  # a copy


def test_compare_refuses_words_of_different_estimates(run: Run, made: Path) -> None:
    other = read(made / "it-b.safetensors")
    embeddings.write(
        embeddings.Embedding("it-b", other.vectors, {**other.provenance, "words": []}),
        made / "it-b.safetensors",
        overwrite=True,
    )
    result = run("compare", "embeddings/it-a.safetensors", TEXT, "--measure", "Full")
    assert (
        result.exit_code == 2 and "it-b.safetensors comes from another estimate; estimate them again" in result.stderr
    )


def test_a_curve_begins_with_as_many_vectors_as_there_are_words(run: Run) -> None:
    refused = run("estimate", TEXT, "--words", "one per weight", "--curve", "1,2", "--learning-steps", "5")
    assert refused.exit_code == 2 and "tokens=1: the text has 2 weights, each a word of its own" in refused.stderr
    result = run("estimate", TEXT, "--words", "one per weight", "--curve", "2,3", "--learning-steps", "5", "--json")
    assert [row["tokens"] for row in last(result)["rows"]] == [2, 3]


@pytest.mark.parametrize(
    "words",
    quick_first(
        2,
        [
            "it-a",
            [["it-a", 1, 1.5]],
            [{"name": "it-a", "tokens": 1, "typed_weight": 1.5}],
            [{"name": "it-a", "tokens": 1, "typed_weight": 1.5}, {"name": "../x", "tokens": 1, "typed_weight": 1}],
            [{"name": "it-a", "tokens": 1, "typed_weight": 1.5}, {"name": "it-b", "tokens": 0, "typed_weight": 1}],
            [{"name": "it-a", "tokens": 1, "typed_weight": 1.5}, {"name": "it-b", "tokens": 1, "typed_weight": True}],
        ],
    ),
)
def test_what_is_no_list_of_words_counts_as_none(run: Run, made: Path, words: object) -> None:
    path = made / "it-a.safetensors"
    first = read(path)
    told = embeddings.Embedding("it-a", first.vectors, {**first.provenance, "words": words})
    embeddings.write(told, path, overwrite=True)
    assert last(run("inspect", str(path), "--json"))["phrase"] == "(it-a:1.5)"


def test_a_weight_beyond_the_settings_bounds_is_measured_as_it_is_typed(run: Run) -> None:
    """A prompt's weights have no bounds, and a word has its prompt's."""
    result = run("estimate", "(red:2.5)", "--name", "it", "--words", "One per weight", "--measure", "Full", "--json")
    assert result.exit_code == 0 and last(result)["phrase"] == "(it:2.5)", result.output
    shown = run("inspect", "embeddings/it.safetensors", "--json")
    assert last(shown)["typed_weight"] == 2.5 and "typed as (it:2.5)" in shown.stdout
    for typed in ((), ("--typed-weight", "2.5")):
        measured = run("compare", "embeddings/it.safetensors", "(red:2.5)", "--measure", "Full", "--json", *typed)
        assert measured.exit_code == 0, measured.output
        assert last(measured)["typed_weight"] == 2.5 and last(measured)["explained"] == pytest.approx(1, abs=1e-4)
