"""How faithful each training part is, and how soon, beside the scheme of the tool that this project follows."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import prompts
from benchmarks.methods import METHODS, Case, Run, run_ours, run_reference
from benchmarks.prompts import Prompt
from embedding_estimate.demo import demo_model_path
from embedding_estimate.errors import PromptError
from embedding_estimate.host import Host

REFERENCE = "reference"
JUDGED = "unet"  # the method that the gates are for
REFERENCE_TOO_POOR = 0.2  # emphasis_explained; below it, the time to reach it means nothing


@dataclass(frozen=True)
class Row:
    """One method on one prompt."""

    prompt: str
    negative: bool
    tokens: int
    method: str
    explained: float
    emphasis_explained: float | None  # None where the prompt's weights do nothing
    seconds: float
    seconds_to_reference_best: float | None
    error: float  # err(embedding), err(empty prompt), err(prompt with every weight 1), for ratios of sums
    error_empty: float
    error_without_weights: float


def compare(host: Host, prompt: Prompt, methods: Sequence[str], *, seed: int, random_start: bool) -> Iterator[Row]:
    """The rows of one prompt, the reference's first."""
    case = Case.of(prompt, host)
    to_reach = None
    if REFERENCE in methods:
        run = run_reference(host, case, seed=seed, random_start=random_start)
        to_reach = run.result.emphasis_explained
        yield _row(case, REFERENCE, run)
    for method in methods:
        if method == REFERENCE:
            continue
        try:
            yield _row(case, method, run_ours(host, case, method, seed=seed, to_reach=to_reach))
        except PromptError as error:
            click.echo(f"{method}: {prompt.text}: {error}", err=True)


def _row(case: Case, method: str, run: Run) -> Row:
    return Row(
        prompt=case.prompt.text,
        negative=case.prompt.negative,
        tokens=case.tokens,
        method=method,
        explained=run.result.explained,
        emphasis_explained=run.result.emphasis_explained,
        seconds=run.seconds,
        seconds_to_reference_best=run.seconds_to_best,
        error=run.result.error,
        error_empty=case.yardstick.empty,
        error_without_weights=case.yardstick.unweighted,
    )


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Each method's figures over the prompts, and whether the judged one reaches what it has to."""
    methods = {name: _figures(name, rows) for name in dict.fromkeys(row.method for row in rows)}
    return {"methods": methods, "gates": _gates(methods[JUDGED]) if JUDGED in methods else []}


def _figures(method: str, rows: Sequence[Row]) -> dict[str, Any]:
    mine = [row for row in rows if row.method == method]
    emphasised = [row for row in mine if row.emphasis_explained is not None]
    figures: dict[str, Any] = {
        "prompts": len(mine),
        "explained": {
            "ratio_of_sums": 1 - sum(row.error for row in mine) / sum(row.error_empty for row in mine),
            "median": statistics.median(row.explained for row in mine),
            "worst": min(row.explained for row in mine),
        },
        "emphasis_explained": None,
        "seconds": {"median": statistics.median(r.seconds for r in mine), "worst": max(r.seconds for r in mine)},
        "time_of_reference": _time_of_reference(mine, rows),
    }
    if emphasised:
        unweighted = sum(row.error_without_weights for row in emphasised)
        found = [row.emphasis_explained for row in emphasised if row.emphasis_explained is not None]
        figures["emphasis_explained"] = {
            "ratio_of_sums": 1 - sum(row.error for row in emphasised) / unweighted,
            "median": statistics.median(found),
            "worst": min(found),
        }
    return figures


def _time_of_reference(mine: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any] | None:
    """Seconds to the reference's best over its own; a prompt where that was never reached counts as infinity."""
    theirs = {(row.prompt, row.negative): row for row in rows if row.method == REFERENCE}
    ratios = []
    for row in mine:
        best = theirs.get((row.prompt, row.negative))
        if best is None or best is row or (best.emphasis_explained or 0) < REFERENCE_TOO_POOR:
            continue
        reached, needed = row.seconds_to_reference_best, best.seconds_to_reference_best
        ratios.append(math.inf if reached is None or needed is None else reached / needed)
    if not ratios:
        return None
    return {
        "prompts": len(ratios),
        "never_reached": sum(map(math.isinf, ratios)),
        "median": _finite(statistics.median(ratios)),
        "worst": _finite(max(ratios)),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _gates(figures: dict[str, Any]) -> list[dict[str, Any]]:
    time, emphasis = figures["time_of_reference"], figures["emphasis_explained"]
    gates = [_gate("explained, ratio of sums", figures["explained"]["ratio_of_sums"], at_least=0.93)]
    if emphasis:
        gates.append(_gate("emphasis_explained, ratio of sums", emphasis["ratio_of_sums"], at_least=0.45))
    gates.append(_gate("seconds, worst prompt", figures["seconds"]["worst"], at_most=60))
    if time:
        gates.append(_gate("time to the reference's best over its own, worst prompt", time["worst"], at_most=0.25))
    return gates


def _gate(figure: str, value: float | None, at_least: float = -math.inf, at_most: float = math.inf) -> dict[str, Any]:
    """`value` None: never reached."""
    return {
        "figure": figure,
        "value": value,
        "to_reach": f">= {at_least:g}" if math.isfinite(at_least) else f"<= {at_most:g}",
        "reached": value is not None and at_least <= value <= at_most,
    }


def _table_line(row: Row) -> str:
    text = f"{'-' if row.negative else ' '} {row.prompt}"
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return (
        f"{text:60} {row.tokens:3} {row.method:12} {row.explained:7.4f} {_number(row.emphasis_explained, 6, 2)} "
        f"{row.seconds:7.1f} {_number(row.seconds_to_reference_best, 7, 1)}"
    )


TABLE_HEAD = f"{'  prompt':60} {'N':>3} {'method':12} {'expl.':>7} {'emph.':>6} {'seconds':>7} {'to best':>7}"


def _number(value: float | None, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def _summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    for name, figures in summary["methods"].items():
        for figure in ("explained", "emphasis_explained", "seconds", "time_of_reference"):
            if values := figures[figure]:
                told = ", ".join(f"{key} {_number(value, 0, 4)}" for key, value in values.items())
                yield f"{name}: {figure}: {told}"
    for gate in summary["gates"]:
        told = "reached" if gate["reached"] else "MISSED"
        yield f"{JUDGED}: {gate['figure']}: {_number(gate['value'], 0, 3)}, to reach {gate['to_reach']}: {told}"


def _write(path: Path, report: dict[str, Any]) -> None:
    """Whole or not at all: a run that is killed while writing keeps what it had."""
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(json.dumps(report, indent=1), "utf-8")
    beside.replace(path)


@click.command(help=__doc__)
@click.option("--model", help="A folder, checkpoint or hub name.  [default: the demo model]")
@click.option("--prompts", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="One prompt per line, a leading - for a negative one; or one JSON object per line.  "
              "[default: drawn from the seed]")  # fmt: skip
@click.option("--count", default=12, show_default=True, type=click.IntRange(1), help="Prompts to draw.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the prompts and of training.")
@click.option("--methods", default=",".join([REFERENCE, *METHODS]), show_default=True, help="With commas.")
@click.option("--random-start", is_flag=True, help="Start the reference from random vectors.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON file, kept after each prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last; the table goes to stderr.")
def main(
    model: str | None,
    file: Path | None,
    count: int,
    seed: int,
    methods: str,
    random_start: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    chosen = [name for name in (REFERENCE, *METHODS) if name in methods.split(",")]
    if unknown := set(methods.split(",")) - set(chosen):
        raise click.BadParameter(f"{', '.join(unknown)}: choose from {', '.join((REFERENCE, *METHODS))}")
    try:
        cases = prompts.read(file) if file else prompts.generate(count, seed)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None

    from embedding_estimate.hosts.standalone.host import StandaloneHost

    host = StandaloneHost.load(model or demo_model_path())
    report: dict[str, Any] = {"rows": [], "summary": {}}
    rows: list[Row] = []
    click.echo(TABLE_HEAD, err=as_json)
    for case in cases:
        for row in compare(host, case, chosen, seed=seed, random_start=random_start):
            rows.append(row)
            click.echo(_table_line(row), err=as_json)
        report = {"rows": [asdict(row) for row in rows], "summary": summarise(rows)}
        if out:
            _write(out, report)
    for line in _summary_lines(report["summary"]):
        click.echo(line, err=as_json)
    if as_json:
        click.echo(json.dumps(report))


if __name__ == "__main__":
    main()
