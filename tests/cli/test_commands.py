"""What each command prints and writes."""

import os
import re
from pathlib import Path

import pytest
import torch
from command_line import QUICK, Run, files, last, program
from toy import ToyHost

from embedding_estimate.cli import main
from embedding_estimate.files import embedding as embeddings
from embedding_estimate.files.embedding import Embedding, read
from embedding_estimate.files.free_name import free_name
from embedding_estimate.settings import PARAMETERS

KEYS = [
    *(
        "path",
        "paths",
        "name",
        "phrase",
        "words_tried",
        "tokens",
        "typed_weight",
        "part",
        "steps",
        "explained",
        "emphasis_explained",
        "explained_without_weights",
    ),
    *("explained_truncated", "explained_in_context", "explained_in_context_without_weights", "emphasis_in_context"),
    *("worst_context", "contexts", "own_contexts"),
    *("standard_errors", "image_distance", "seconds", "seconds_prepare", "seconds_train"),
    *("unet_forwards", "unet_backwards", "passes", "stopped", "notes"),
]


def test_estimate_saves_an_embedding_and_ends_in_one_json_object(run: Run, tmp_path: Path) -> None:
    result = run("estimate", "red (circle:1.8)", "--name", "madeup", *QUICK, "--json")
    assert result.exit_code == 0, result.output
    told = last(result)
    assert list(told) == KEYS
    assert told["path"] == str(Path("embeddings", "madeup.safetensors"))
    assert (told["name"], told["tokens"], told["part"], told["steps"]) == ("madeup", 2, "Attention", 10)
    assert told["typed_weight"] == 1 and "2 vectors, typed as the word madeup" in result.stdout
    assert told["stopped"] == "done" and 0 < told["unet_backwards"] < told["unet_forwards"]
    assert read(tmp_path / told["path"]).tokens == 2
    assert files(tmp_path) == ["embeddings", "embeddings/madeup.safetensors"]


def test_options_reach_the_model_and_the_settings(run: Run, loads: list[dict], tmp_path: Path) -> None:
    model = ("--model", "my/model", "--device", "cpu", "--dtype", "BF16", "--emphasis", "no norm", "--clip-skip", "2")
    lines = ("--templates", "a {}", "--templates", "{} b", "--negative", "cat", "--cfg-scale", "5", "--part", "u-net")
    others = ("--loss", "l1", "--sampler", "EULER", "--private")
    result = run("estimate", "(red:1.5)", "--name", "madeup", *QUICK, *model, *lines, *others)
    assert result.exit_code == 0, result.output
    assert loads[0] == {
        "model": "my/model",
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "emphasis": "No norm",
        "clip_skip": 2,
    }
    settings = read(tmp_path / "embeddings" / "madeup.safetensors").provenance["settings"]
    assert settings["guidance_scale"] == 5.0 and settings["loss"] == "L1" and settings["sampler"] == "Euler"
    assert "templates" not in settings and settings["private"] is True


def test_lines_are_joined(run: Run, tmp_path: Path) -> None:
    lines = ("--other-prompt", "a cat", "--other-prompt", "a dog")
    assert (
        run("estimate", "(red:1.5)", "--prompt-type", "negative prompt", "--name", "x1", *QUICK, *lines).exit_code == 0
    )
    assert read(tmp_path / "embeddings" / "x1.safetensors").provenance["settings"]["other_prompt"] == "a cat\na dog"


@pytest.mark.slow
def test_the_report_and_the_snapshots_stay_out_of_the_embeddings(run: Run, tmp_path: Path) -> None:
    result = run(
        *("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--save-every", "5", "--preview-every", "10"),
        *("--report", "r.png", "--out", "a/b"),
    )
    assert result.exit_code == 0, result.output
    assert [name for name in files(tmp_path) if "." in name] == [
        "a/b-steps/x1/x1-000005.safetensors",
        "a/b-steps/x1/x1-000010.png",
        "a/b-steps/x1/x1-000010.safetensors",
        "a/b/x1.safetensors",
        "r.png",
    ]
    assert "report: r.png" in result.stdout and "b-steps" in result.stdout
    again = run("estimate", "(red:1.5)", "--name", "x2", *QUICK, "--save-every", "5", "--out", "a/b")
    assert again.exit_code == 0
    Path("a/b/x1.safetensors").unlink()
    again = run("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--save-every", "10", "--out", "a/b")
    assert again.exit_code == 0 and "x1 (before): holds the snapshots of an earlier job" in again.stderr
    steps = [name for name in files(tmp_path) if name.startswith("a/b-steps/x1") and "." in name]
    assert steps == [
        "a/b-steps/x1 (before)/x1-000005.safetensors",
        "a/b-steps/x1 (before)/x1-000010.png",
        "a/b-steps/x1 (before)/x1-000010.safetensors",
        "a/b-steps/x1/x1-000010.safetensors",
    ]


@pytest.mark.slow
def test_a_snapshot_is_an_embedding_like_any_other(run: Run, tmp_path: Path) -> None:
    """`inspect`, `compare` and `--from` take it."""
    made = ("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--save-every", "5", "--typed-weight", "1.2")
    assert run(*made).exit_code == 0
    snapshot = tmp_path / "embeddings-steps" / "x1" / "x1-000005.safetensors"
    provenance = read(snapshot).provenance
    assert (provenance["steps"], provenance["stopped"], provenance["typed_weight"]) == (5, "snapshot", 1.2)
    assert provenance["settings"] == read(tmp_path / "embeddings" / "x1.safetensors").provenance["settings"]
    assert "typed as (x1-000005:1.2)" in run("inspect", str(snapshot)).stdout
    assert last(run("compare", str(snapshot), "(red:1.5)", "--json"))["typed_weight"] == 1.2
    again = run("estimate", "--from", str(snapshot), "--name", "x2", "--json")
    assert again.exit_code == 0 and last(again)["name"] == "x2"


@pytest.mark.slow
def test_a_report_among_the_embeddings_is_warned_of(run: Run) -> None:
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--report", "embeddings/r.png")
    assert result.exit_code == 0 and "where a WebUI may take a picture for an embedding" in result.stderr


@pytest.mark.slow
def test_the_demo_can_be_run_again(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        result = run("demo", "--json")
        assert result.exit_code == 0, result.output
    assert last(result)["name"] == "demo-red-circle"
    assert files(tmp_path) == ["demo-red-circle.png", "embeddings", "embeddings/demo-red-circle.safetensors"]
    assert "demo-red-circle.png shows" in result.stdout and "among other words: blue demo-red-circle\n" in result.stdout
    figures = last(result)
    assert f"reproduces {figures['explained_in_context']:.3f} of the prompt's effect" in result.stdout
    assert f"and {figures['emphasis_in_context']:.3f} of the effect of its weights" in result.stdout


def test_a_saved_file_is_estimated_again(run: Run, tmp_path: Path) -> None:
    first = run("estimate", "red (circle:1.8)", "--name", "x1", *QUICK, "--seed", "3", "--overwrite")
    assert first.exit_code == 0
    taken = run("estimate", "--from", "embeddings/x1.safetensors")
    assert taken.exit_code == 2 and "has this name" in taken.stderr
    again = run("estimate", "--from", "embeddings/x1.safetensors", "--name", "x2", "--json")
    assert again.exit_code == 0, again.output
    one, two = (read(tmp_path / "embeddings" / f"{name}.safetensors") for name in ("x1", "x2"))
    assert torch.equal(one.vectors["emb_params"], two.vectors["emb_params"])
    other = run("estimate", "red", "--from", "embeddings/x1.safetensors", "--name", "x3", "--tokens", "1", "--json")
    assert last(other)["tokens"] == 1 and last(other)["stopped"] == "exact"


def test_a_file_that_names_a_removed_optimizer_says_so_in_one_line(run: Run, loads: list[dict], tmp_path: Path) -> None:
    told = {"settings": {"text": "red (circle:1.8)", "name": "old", "optimizer": "Adadelta", "scheduler": "cyclic"}}
    embeddings.write(Embedding("old", {"clip_l": torch.ones(2, 6)}, told), tmp_path / "old.safetensors")
    refused = run("estimate", "--from", "old.safetensors", "--name", "x2")
    assert refused.exit_code == 2 and not loads
    assert refused.stderr.splitlines() == [
        "Error: optimizer='Adadelta' is no longer offered: choose Automatic",
        "Error: scheduler='cyclic' is no longer offered: choose constant",
    ]
    options = ("--optimizer", "automatic", "--scheduler", "constant", "--learning-steps", "3", "--measure", "Nothing")
    again = run("estimate", "--from", "old.safetensors", "--name", "x2", *options)
    assert again.exit_code == 0, again.output


def test_a_private_file_says_what_is_missing(run: Run) -> None:
    run("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--private")
    result = run("estimate", "--from", "embeddings/x1.safetensors", "--name", "x2")
    assert result.exit_code == 2 and "kept out of it; give TEXT" in result.stderr
    assert run("estimate", "(red:1.5)", "--from", "embeddings/x1.safetensors", "--name", "x2").exit_code == 0


def test_a_foreign_file_cannot_be_estimated_again(run: Run, tmp_path: Path) -> None:
    embeddings.write(Embedding("x", {"emb_params": torch.ones(2, 6)}), tmp_path / "x.pt")
    result = run("estimate", "--from", "x.pt")
    assert result.exit_code == 2 and "does not say how it was made" in result.stderr


def test_a_curve_saves_nothing_but_its_picture(run: Run, tmp_path: Path) -> None:
    result = run("estimate", "red (circle:1.8)", *QUICK, "--curve", "1,2,3", "--report", "c.png", "--json")
    assert result.exit_code == 0, result.output
    assert [row["tokens"] for row in last(result)["rows"]] == [1, 2, 3]
    assert files(tmp_path) == ["c.png"]


@pytest.mark.parametrize("counts", ["1,x", "", "0,1", "1,76"])
def test_a_curve_over_something_else_is_refused(run: Run, loads: list[dict], counts: str) -> None:
    assert run("estimate", "red", *QUICK, "--curve", counts).exit_code == 2
    assert not loads


def test_inspect_shows_own_and_foreign_files(run: Run, tmp_path: Path) -> None:
    run("estimate", "red (circle:1.8)", "--name", "x1", *QUICK)
    result = run("inspect", "embeddings/x1.safetensors", "--json")
    assert result.exit_code == 0 and "red (circle:1.8)" in result.stdout
    told = last(result)
    fidelity = told["provenance"]["fidelity"]
    assert fidelity["protocol"] == "quick v2"
    shown = result.stdout.splitlines()
    below = shown[shown.index("errors by context") + 1 :][: len(fidelity["contexts"])]
    assert [line.split(", embedding ")[0] for line in below] == [
        f"  context {row['context']}" for row in fidelity["contexts"]
    ]
    assert not any(line.startswith("  explained bare") for line in shown)  # it has no typed weight
    assert told["vectors"]["emb_params"]["width"] == 6 and len(told["vectors"]["emb_params"]["norms"]) == 2

    hostile = {"settings": {"text": "\x1b[2J"}, "fidelity": 5, "model": ["\x07"]}
    embeddings.write(Embedding("y", {"emb_params": torch.ones(2, 6)}, hostile), tmp_path / "y.safetensors")
    result = run("inspect", "y.safetensors")
    assert result.exit_code == 0 and "\x1b" not in result.output and "\x07" not in result.output
    embeddings.write(Embedding("z", {"emb_params": torch.ones(2, 6)}), tmp_path / "z.pt")
    assert "the file does not say how it was made" in run("inspect", "z.pt").stdout


def test_compare_measures_any_file(run: Run, loads: list[dict], tmp_path: Path) -> None:
    told = {"clip_skip": 2, "emphasis": "No norm"}
    embeddings.write(Embedding("y", {"anything": torch.zeros(2, 6)}, told), tmp_path / "y.safetensors")
    result = run("compare", "y.safetensors", "red (circle:1.8)", "--report", "r.png", "--json")
    assert result.exit_code == 0, result.output
    assert last(result)["explained"] < 0.5 and last(result)["tokens"] == 2
    assert loads[-1].items() >= told.items()
    assert run("compare", "y.safetensors", "red", "--clip-skip", "1", "--emphasis", "None").exit_code == 0
    assert loads[-1].items() >= {"clip_skip": 1, "emphasis": "None"}.items()
    assert Path("r.png").is_file() and "report: r.png" in result.stdout
    embeddings.write(Embedding("w", {"anything": torch.zeros(2, 7)}), tmp_path / "w.safetensors")
    nothing = run("compare", "y.safetensors", "()")
    assert nothing.exit_code == 2 and "does what the empty prompt does" in nothing.stderr
    wide = run("compare", "w.safetensors", "red")
    assert wide.exit_code == 2 and "vectors 7 wide" in wide.stderr


@pytest.mark.slow
def test_a_typed_weight_goes_with_the_file(run: Run, tmp_path: Path) -> None:
    result = run("estimate", "(red circle:1.3)", "--name", "x1", *QUICK, "--typed-weight", "1.3", "--json")
    assert result.exit_code == 0, result.output
    assert last(result)["typed_weight"] == 1.3 and "2 vectors, typed as (x1:1.3)" in result.stdout
    assert "bare name" in result.stdout

    shown = run("inspect", "embeddings/x1.safetensors", "--json")
    assert last(shown)["typed_weight"] == 1.3 and "typed as (x1:1.3)" in shown.stdout

    measured = run("compare", "embeddings/x1.safetensors", "(red circle:1.3)", "--json")
    assert measured.stdout.startswith("(x1:1.3) (2 vectors) compared with") and "bare name" in measured.stdout
    assert last(measured)["typed_weight"] == 1.3
    assert last(measured)["explained"] == pytest.approx(last(result)["explained"])
    bare = run("compare", "embeddings/x1.safetensors", "(red circle:1.3)", "--typed-weight", "1", "--json")
    assert last(bare)["typed_weight"] == 1 and last(bare)["explained"] < last(measured)["explained"]
    unsolved = run("compare", "embeddings/x1.safetensors", "red", "--typed-weight", "0")
    assert (
        unsolved.exit_code == 2
        and "typed_weight=0: compare does not search for a weight; give the weight that the name is typed with"
        in unsolved.stderr
    )


def test_prompts_may_name_the_embeddings_of_a_folder(run: Run, toy_host: ToyHost, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name, width in (("y", 6), ("w", 7)):
        embeddings.write(Embedding(name, {"any": torch.zeros(2, width)}), tmp_path / "mine" / f"{name}.safetensors")
    (tmp_path / "mine" / "broken.pt").write_bytes(b"no")
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--embeddings", "mine")
    assert result.exit_code == 0, result.output
    assert list(toy_host.added) == ["y"] and list(toy_host.added["y"]) == ["clip_l"]
    assert "broken.pt" in result.stderr and "vectors 7 wide" in result.stderr


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("(red:1.5) circle", "red-circle"),
        ("blurry", "blurry-embedding"),
        ("a cat AND a dog", "a-cat-a"),
        ("(1:1.2)", "an-embedding"),
        ("<lora:x:1> Été froid", "été-froid"),
        ("x " * 5000, "x-x-x"),
        ("supercalifragilistic" * 20, "an-embedding"),
    ],
)
def test_a_name_is_made_from_the_words(tmp_path: Path, text: str, name: str) -> None:
    assert free_name(text, [tmp_path / "missing"]) == name
    (tmp_path / f"{name}.pt").touch()
    assert free_name(text, [tmp_path / "missing", tmp_path]) == f"2-{name}"
    (tmp_path / "2.pt").touch()
    assert free_name(text, [tmp_path]) == f"3-{name}"
    for number in range(3, 10):
        (tmp_path / f"{number}.pt").touch()
    assert re.fullmatch(f"[0-9a-f]{{6}}-{name}", free_name(text, [tmp_path]))


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        *(("good.pt", True), ("good-red.pt", True), ("good-red-circle.txt", True)),
        *(("goo.pt", False), ("red.pt", False), ("\u3000.pt", False), (".preview.png", False), ("good.txt", False)),
    ],
)
def test_a_name_that_is_made_begins_with_no_other(tmp_path: Path, other: str, alike: bool) -> None:
    (tmp_path / other).touch()
    assert free_name("good (red:1.4) circle", [tmp_path]) == ("2-good-red-circle" if alike else "good-red-circle")


def test_names_that_get_into_each_others_way_are_told(run: Run) -> None:
    assert run("estimate", "(red:1.5)", "--name", "x1-red", *QUICK).exit_code == 0
    result = run("estimate", "(red:1.5)", "--name", "x1", *QUICK)
    assert result.exit_code == 0 and "note: x1: begins x1-red" in result.stdout
    assert result.stderr.index("Note: x1: begins x1-red") < result.stderr.index("saved")
    assert result.stdout.count("ordinary words") == 1


def test_every_setting_is_an_option_of_estimate() -> None:
    options = {parameter.name for parameter in main.commands["estimate"].params}
    assert {parameter.name for parameter in PARAMETERS} <= options


def test_help_tells_the_bounds_and_defaults() -> None:
    shown = program("estimate", "--help", text=True)
    words = " ".join(shown.stdout.split())
    assert shown.returncode == 0 and "[0 to 75; default: 0]" in words
    assert "Lion" in words and "--no-private" in words and "[]" not in words


@pytest.mark.slow
def test_a_terminal_that_cannot_show_the_prompt_is_no_error(tmp_path: Path) -> None:
    embeddings.write(Embedding("y", {"any": torch.ones(1, 6)}, {"settings": {"text": "赤い丸"}}), tmp_path / "y.pt")
    shown = program("inspect", str(tmp_path / "y.pt"), env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert shown.returncode == 0 and b"\\u8d64" in shown.stdout


def test_an_unknown_command_is_bad_input() -> None:
    assert program("estmate").returncode == 2
