"""`--contexts FILE`: figures among words of the user's own."""

from pathlib import Path

import pytest
import torch
from command_line import QUICK, Run, files, last
from suites import quick_first

from embedding_estimate.cli.contexts import read
from embedding_estimate.fidelity.wording import number
from embedding_estimate.files.embedding import Embedding, write

TEXT = "red (circle:1.8)"
MINE = ("big {}, green", "{} tree", "(blue:1.3) {}")


def written(lines: tuple[str, ...], name: str = "mine.txt") -> str:
    Path(name).write_text("\n".join(lines), "utf-8")
    return name


def shown(rows: list[dict]) -> list[str]:
    return [row["context"] for row in rows]


@pytest.mark.usefixtures("brief")
def test_figures_are_measured_in_the_users_contexts(run: Run) -> None:
    own = written(MINE)
    result = run("estimate", TEXT, "--name", "x1", *QUICK, "--measure", "Full", "--contexts", own, "--json")
    assert result.exit_code == 0, result.output
    assert "share of the prompt's effect in your own contexts" in result.stdout
    figures = last(result)
    assert figures["own_contexts"] is True and shown(figures["contexts"]) == list(MINE)
    lost = {row["context"]: row["embedding"] - row["without weights"] for row in figures["contexts"]}
    assert lost[figures["worst_context"]] == max(lost.values())
    mine, words = (sum(row[key] for row in figures["contexts"]) for key in ("embedding", "without weights"))
    assert figures["emphasis_in_context"] == pytest.approx(1 - mine / words, abs=1e-6)

    compared = last(run("compare", "embeddings/x1.safetensors", TEXT, "--contexts", own, "--json"))
    assert shown(compared["contexts"]) == list(MINE) and compared["own_contexts"] is True
    assert compared["emphasis_in_context"] == pytest.approx(figures["emphasis_in_context"], abs=1e-6)
    models = last(run("compare", "embeddings/x1.safetensors", TEXT, "--json"))
    assert models["own_contexts"] is False and shown(models["contexts"]) == ["blue {}", "{} cat"]
    assert compared["explained"] == models["explained"]

    curve = run("estimate", TEXT, *QUICK[2:], "--curve", "1,2", "--contexts", own, "--json")
    assert [shown(row["contexts"]) for row in last(curve)["rows"]] == [list(MINE)] * 2
    for row, line in zip(last(curve)["rows"], curve.stdout.splitlines()[1:3], strict=True):
        assert line.split()[3] == number(row["emphasis_in_context"])  # of some seeds quick figures are not sure: -


def test_one_context_has_no_standard_error(run: Run) -> None:
    result = run("estimate", TEXT, "--name", "x1", *QUICK, "--contexts", written(MINE[:1]), "--json")
    assert result.exit_code == 0, result.output
    errors = last(result)["standard_errors"]
    assert errors["emphasis_in_context"] is errors["explained_in_context"] is None
    assert errors["explained"] is not None
    assert "below 0 = worse than them\n" in result.stdout  # and no standard error


@pytest.mark.usefixtures("brief")
def test_nothing_is_trained_in_them(run: Run) -> None:
    command = ("estimate", TEXT, *QUICK, "--measure", "Full")
    assert run(*command, "--name", "x1").exit_code == 0
    assert run(*command, "--name", "x2", "--contexts", written(MINE)).exit_code == 0
    first, second = (last(run("inspect", f"embeddings/{name}.safetensors", "--json")) for name in ("x1", "x2"))
    assert first["vectors"] == second["vectors"]
    assert second["provenance"]["fidelity"]["worst_context"] in MINE


@pytest.mark.usefixtures("brief")
def test_a_private_file_keeps_their_words_out(run: Run) -> None:
    result = run("estimate", TEXT, "--name", "x1", *QUICK, "--private", "--contexts", written(MINE), "--json")
    assert shown(last(result)["contexts"]) == list(MINE)
    figures = last(run("inspect", "embeddings/x1.safetensors", "--json"))["provenance"]["fidelity"]
    assert figures["own_contexts"] is True and len(figures["contexts"]) == len(MINE)
    data = Path("embeddings/x1.safetensors").read_bytes()
    assert all(context.encode() not in data for context in MINE)


def test_of_a_file_that_does_not_say_nothing_is_told(run: Run, tmp_path: Path) -> None:
    own = written(("a {}", "{}"))
    for told in ({}, {"settings": {"text": "red"}}, {"settings": {"templates": 5}}, {"settings": 5}):
        write(Embedding("y", {"clip_l": torch.ones(2, 6)}, told), tmp_path / "y.safetensors", overwrite=True)
        result = run("compare", "y.safetensors", TEXT, "--measure", "full", "--contexts", own)
        assert result.exit_code == 0 and flattering(result.stderr) == []


def flattering(stderr: str) -> list[str]:
    return [line.split("'")[1] for line in stderr.splitlines() if "so its figures there come out too high" in line]


@pytest.mark.parametrize(
    ("options", "known"),
    quick_first(
        1,
        [
            ((), ["a {}", "big {}"]),  # trained in and chosen by
            (("--part", "U-Net"), ["a {}"]),  # which is chosen by what it is trained in
            (("--templates", "{} cat"), ["{} cat"]),
            (("--use", "alone"), []),
        ],
    ),
)
def test_a_context_that_is_trained_in_is_told(run: Run, options: tuple[str, ...], known: list[str]) -> None:
    own = written(("a {}", "big {}", "{} cat"))
    made = run("estimate", TEXT, "--name", "x1", *QUICK, *options, "--contexts", own, "--json")
    assert flattering(made.stderr) == known
    assert sum("come out too high" in line for line in last(made)["notes"]) == len(known)
    assert flattering(run("compare", "embeddings/x1.safetensors", TEXT, "--contexts", own).stderr) == known
    assert flattering(run("estimate", TEXT, *QUICK[2:], *options, "--curve", "1", "--contexts", own).stderr) == known


BAD = {
    "missing": (None, "--contexts mine.txt: cannot be read (No such file or directory); give a text file"),
    "empty": (b"", "--contexts mine.txt is empty: write a prompt on each line, with {}"),
    "blank": (b" \n\t\n", "--contexts mine.txt is empty"),
    "some vectors": (
        b"big {} {0:2}\n",
        "--contexts mine.txt, line 1: 'big {} {0:2}' has {0:2}, which stands for some of",
    ),
    "no place": (b"big {}\n\na cat\n", "--contexts mine.txt, line 3: 'a cat' has no {}: write {} where"),
    "no text": (b"big {}\nd\xe9mod\xe9 {}\n", "--contexts mine.txt: byte 9 is not UTF-8; save it as UTF-8 text"),
    "too many": (b"{} a\n" * 201, "--contexts mine.txt has 201 lines: 200 are allowed; leave some out"),
    "endless": (b"{} a\n" * 200_000, "--contexts mine.txt has more than 400,000 bytes: leave lines out"),
}


@pytest.mark.parametrize("command", ["estimate", "curve", "compare"])
@pytest.mark.parametrize("case", BAD)
def test_a_file_of_something_else_is_one_line_before_the_model_is_loaded(
    run: Run, loads: list[dict], tmp_path: Path, case: str, command: str
) -> None:
    data, message = BAD[case]
    if data is not None:
        (tmp_path / "mine.txt").write_bytes(data)
    before = files(tmp_path)
    arguments = {
        "estimate": ("estimate", TEXT),
        "curve": ("estimate", TEXT, "--curve", "1"),
        "compare": ("compare", "x.pt", TEXT),
    }
    result = run(*arguments[command], "--contexts", "mine.txt")
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == 2 and len(errors) == 1 and message in errors[0]
    assert not loads and files(tmp_path) == before


def test_lines_are_read_as_they_are_meant(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes("\ufeff  a cat, {}\r\n\r\n{} été\r\na cat, {}\r\n".encode())
    assert read(file) == ("a cat, {}", "{} été")


def test_a_context_that_changes_with_the_step_is_refused(run: Run, tmp_path: Path) -> None:
    own = written(("big {}", "[blue:{}:2]", "{} AND blue"))
    result = run("estimate", TEXT, "--name", "x1", *QUICK, "--contexts", own)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == 2 and files(tmp_path) == ["mine.txt"]
    assert [line.split("'")[1] for line in errors] == ["[blue:{}:2]", "{} AND blue"]


def test_contexts_where_nothing_is_measured_are_told(run: Run) -> None:
    result = run("estimate", TEXT, "--name", "x1", *QUICK, "--measure", "nothing", "--contexts", written(MINE))
    assert result.exit_code == 0 and "Note: --contexts: no effect with --measure Nothing" in result.stderr
