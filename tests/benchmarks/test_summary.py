"""From rows to the figures that are reported."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from toy import ToyHost

from benchmarks import fidelity, methods
from benchmarks.fidelity import Row, compare, summarise
from benchmarks.prompts import Prompt

REFERENCE = Row("a", False, 3, "reference", 0.9, 0.5, 40.0, 20.0, 0.5, 5.0, 1.0)
OURS = Row("a", False, 3, "unet", 0.98, 0.9, 10.0, 4.0, 0.1, 5.0, 1.0)


def other_prompt(row: Row, **changes: object) -> Row:
    return replace(row, prompt="b", **changes)


def test_sums_are_taken_before_ratios() -> None:
    """1 - (0.1 + 1.5) / (5 + 3) and 1 - (0.1 + 1.5) / (1 + 3)."""
    worse = other_prompt(OURS, explained=0.5, emphasis_explained=0.5, error=1.5, error_empty=3, error_without_weights=3)
    figures = summarise([OURS, worse])["methods"]["unet"]
    assert figures["explained"] == pytest.approx({"ratio_of_sums": 0.8, "median": 0.74, "worst": 0.5})
    assert figures["emphasis_explained"] == pytest.approx({"ratio_of_sums": 0.6, "median": 0.7, "worst": 0.5})
    assert figures["prompts"] == 2


def test_prompts_whose_weights_do_nothing_have_no_emphasis() -> None:
    plain = other_prompt(OURS, emphasis_explained=None, error=2.0, error_without_weights=0.001)
    figures = summarise([OURS, plain])["methods"]["unet"]
    assert figures["emphasis_explained"]["ratio_of_sums"] == pytest.approx(0.9)
    assert summarise([plain])["methods"]["unet"]["emphasis_explained"] is None


def test_time_is_compared_where_the_reference_gets_anywhere() -> None:
    """4 / 20 for the first prompt; on the second the reference's best, 0.19, is too poor to be raced to."""
    poor = other_prompt(REFERENCE, emphasis_explained=0.19)
    time = summarise([REFERENCE, OURS, poor, other_prompt(OURS)])["methods"]["unet"]["time_of_reference"]
    assert time == pytest.approx({"prompts": 1, "never_reached": 0, "median": 0.2, "worst": 0.2})
    assert summarise([OURS])["methods"]["unet"]["time_of_reference"] is None
    assert summarise([REFERENCE])["methods"]["reference"]["time_of_reference"] is None


def test_a_best_that_is_never_reached_misses_the_gate() -> None:
    never = other_prompt(OURS, seconds_to_reference_best=None)
    summary = summarise([REFERENCE, OURS, other_prompt(REFERENCE), never])
    time = summary["methods"]["unet"]["time_of_reference"]
    assert time["never_reached"] == 1 and time["worst"] is None
    assert [gate["reached"] for gate in summary["gates"]] == [True, True, True, False]
    assert [gate["reached"] for gate in summarise([REFERENCE, OURS])["gates"]] == [True] * 4


@pytest.mark.parametrize("prompt", [Prompt("red (circle:1.8)"), Prompt("(dull:1.6) cat", True, ("red star", "cat"))])
def test_every_method_is_measured_by_the_same_states(
    toy_host: ToyHost, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "REFERENCE_STEPS", 20)
    rows = list(compare(toy_host, prompt, ["reference", "transformer", "unet"], seed=0, random_start=False))
    assert [row.method for row in rows] == ["reference", "transformer", "unet"]
    assert len({(row.tokens, row.error_empty, row.error_without_weights) for row in rows}) == 1
    for row in rows:
        assert row.tokens == 2 and row.seconds > 0
        assert row.explained == pytest.approx(1 - row.error / row.error_empty)
        assert row.emphasis_explained == pytest.approx(1 - row.error / row.error_without_weights)
    assert rows[2].seconds_to_reference_best is not None and rows[2].emphasis_explained > 0.5
    assert not toy_host.lent


def test_a_report_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    for report in ({"rows": [1]}, {"rows": [1, 2]}):
        fidelity._write(file, report)
        assert json.loads(file.read_text()) == report
    assert list(tmp_path.iterdir()) == [file]


def test_the_program_prints_one_json_object_last(
    toy_host: ToyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedding_estimate.hosts.standalone.host.StandaloneHost.load", lambda model: toy_host)
    file, out = tmp_path / "prompts.txt", tmp_path / "report.json"
    file.write_text("red (circle:1.8)\n")
    options = ["--model", "toy", "--prompts", str(file), "--methods", "unet", "--out", str(out), "--json"]
    result = CliRunner().invoke(fidelity.main, options, catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads(result.stdout.splitlines()[-1])
    assert report == json.loads(out.read_text())
    assert [row["method"] for row in report["rows"]] == ["unet"]
    assert report["summary"]["methods"]["unet"]["prompts"] == 1


def test_an_unknown_method_is_refused() -> None:
    result = CliRunner().invoke(fidelity.main, ["--methods", "unet,magic"])
    assert result.exit_code == 2 and "magic" in result.output
