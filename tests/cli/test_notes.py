"""What the command line says before the work: notes on stderr, each once, and in the JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import QUICK, Run, last
from toy import ToyHost

from embedding_estimate.files.embedding import Embedding, read, write
from embedding_estimate.files.everyday_words import typed_anyway
from embedding_estimate.files.free_name import free_name

INFOTEXT = """(red:1.5) circle
Negative prompt: blurry, grey
Steps: 4, Sampler: Euler, Schedule type: Karras, CFG scale: 5.5, Seed: 12, Size: 32x32, Model: x"""


def told(stderr: str) -> list[str]:
    return [line.removeprefix("Note: ") for line in stderr.splitlines() if line.startswith("Note: ")]


@pytest.mark.usefixtures("brief")
def test_notes_come_before_the_model_is_loaded_once_and_in_the_json(run: Run) -> None:
    result = run("estimate", "red++ (circle:1.8)", "--name", "xqz-red", *QUICK, "--sampler", "DPM++ SDE", "--json")
    assert result.exit_code == 0, result.output
    notes = told(result.stderr)
    assert [note.split()[0] for note in notes[:2]] == ["red++", "sampler:"] and len(notes) == len(set(notes))
    assert result.stderr.index(notes[1]) < result.stderr.index("loading the model")
    assert set(last(result)["notes"]) >= set(notes)  # and what training found
    assert result.stdout.count("note: red++") == 1


@pytest.mark.usefixtures("brief")
def test_what_is_typed_in_vain_beside_a_curve_is_told(run: Run) -> None:
    result = run("estimate", "red (circle:1.8)", *QUICK, "--curve", "1", "--name", "x", "--save-every", "5")
    assert result.exit_code == 0, result.output
    assert told(result.stderr) == [
        "--name, --save-every, --tokens: no effect with --curve, which compares numbers of vectors and saves none"
    ]


@pytest.mark.usefixtures("brief")
def test_compare_says_how_the_prompt_is_read(run: Run, tmp_path: Path, toy_host: ToyHost) -> None:
    write(Embedding("y", {"clip_l": toy_host.model.table[:2]}), tmp_path / "y.safetensors")
    result = run("compare", "y.safetensors", "red++ circle, bad-hands-5")
    assert result.exit_code == 0, result.output
    assert [note.split()[0] for note in told(result.stderr)] == ["red++", "bad-hands-5"]


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("kind", ["prompt", "negative prompt"])
def test_an_infotext_is_read_where_that_is_asked_for(run: Run, tmp_path: Path, kind: str) -> None:
    lines = ("--name", "xqz-red", "--prompt-type", kind, "--tokens", "2", "--learning-steps", "3", "--seed", "5")
    result = run("estimate", INFOTEXT, "--infotext", *lines)
    assert result.exit_code == 0, result.output
    settings = read(tmp_path / "embeddings" / "xqz-red.safetensors").provenance["settings"]
    sides = ("(red:1.5) circle", "blurry, grey")
    assert (settings["text"], settings["other_prompt"]) == (sides if kind == "prompt" else sides[::-1])
    assert (settings["steps"], settings["guidance_scale"], settings["width"], settings["seed"]) == (4, 5.5, 32, 5)
    assert told(result.stderr)[0] == (
        "taken from the infotext: text, other_prompt, schedule, sampler, steps, guidance_scale, width, height"
    )


@pytest.mark.usefixtures("brief")
def test_an_infotext_is_read_for_the_side_of_the_file(run: Run, tmp_path: Path) -> None:
    few = ("--tokens", "2", "--learning-steps", "3")
    made = run("estimate", "(dull:1.5)", "--name", "xqz-one", "--prompt-type", "Negative Prompt", *few)
    assert made.exit_code == 0, made.output
    again = run("estimate", INFOTEXT, "--infotext", "--from", "embeddings/xqz-one.safetensors", "--name", "xqz-two")
    assert again.exit_code == 0, again.output
    settings = read(tmp_path / "embeddings" / "xqz-two.safetensors").provenance["settings"]
    assert (settings["prompt_type"], settings["text"]) == ("Negative Prompt", "blurry, grey")
    assert (settings["other_prompt"], settings["steps"], settings["learning_steps"]) == ("(red:1.5) circle", 4, 3)


def test_an_infotext_that_is_pasted_as_a_prompt_is_offered_to_be_read(run: Run, loads: list[dict]) -> None:
    result = run("estimate", INFOTEXT, "--name", "xqz-red", *QUICK, "--model", "missing")
    assert result.exit_code == 2
    assert any("--infotext" in note and note.startswith("Negative prompt:") for note in told(result.stderr))


def test_a_prompt_is_no_infotext(run: Run, loads: list[dict]) -> None:
    result = run("estimate", "red circle", "--infotext")
    assert (
        result.exit_code == 2
        and "--infotext: TEXT is not an infotext; give all lines that PNG Info shows" in result.stderr
    )
    assert not loads


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("(t-shirt:1.2)", "t-shirt-embedding"),
        ("black and white", "black-and-white-embedding"),
        ("close-up", "close-up-embedding"),
        ("a photo", "a-photo-embedding"),
    ],
)
def test_a_name_that_is_made_is_nothing_that_people_type(text: str, name: str) -> None:
    assert free_name(text, []) == name and not typed_anyway(name)
