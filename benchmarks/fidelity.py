"""How faithful each training part is, and how soon, beside the scheme of the tool that this project follows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks import prompts
from benchmarks.methods import METHODS, Case, Run, run_ceiling, run_ours, run_reference
from benchmarks.prompts import Prompt
from benchmarks.summary import CEILING, REFERENCE, RIVALS, Row, summarise
from embedding_estimate.demo import demo_model_path
from embedding_estimate.errors import PromptError
from embedding_estimate.fidelity.among_words import NO_EMPHASIS
from embedding_estimate.model.host import Host

ALL = (REFERENCE, *METHODS)


def compare(
    host: Host,
    prompt: Prompt,
    methods: Sequence[str],
    *,
    seed: int,
    random_start: bool = False,
    tokens_factor: float = 1.0,
) -> Iterator[Row]:
    """The rows of one prompt, in the order of the methods: a rival has to come before those that race it."""
    case = Case.of(prompt, host, tokens_factor)
    bests: dict[str, float] = {}
    for method in methods:
        try:
            if method == REFERENCE:
                run = run_reference(host, case, seed=seed, random_start=random_start)
            elif method == CEILING:
                run = run_ceiling(host, case, seed=seed)
            else:
                run = run_ours(host, case, method, seed=seed, to_reach=bests)
        except PromptError as error:
            click.echo(f"{method}: {prompt.text}: {error}", err=True)
            continue
        if method in RIVALS and run.result.emphasis_explained is not None:
            bests[method] = run.result.emphasis_explained
        yield _row(case, method, run)


def _row(case: Case, method: str, run: Run) -> Row:
    contexts = case.yardstick.contexts
    words, nothing = (sum(getattr(context, name) for context in contexts) for name in ("words", "nothing"))
    emphasised = words >= NO_EMPHASIS * nothing
    return Row(
        prompt=case.prompt.text,
        negative=case.prompt.negative,
        tokens=case.tokens,
        method=method,
        typed_weight=run.typed_weight,
        explained=run.result.explained,
        emphasis_explained=run.result.emphasis_explained,
        explained_in_context=1 - sum(run.inside) / nothing,
        emphasis_in_context=1 - sum(run.inside) / words if emphasised else None,
        seconds=run.seconds,
        seconds_to_reference_best=run.seconds_to.get(REFERENCE),
        seconds_to_unet_best=run.seconds_to.get("unet"),
        unet_forwards=run.unet_forwards,
        unet_backwards=run.unet_backwards,
        error=run.result.error,
        error_empty=case.yardstick.empty,
        error_without_weights=case.yardstick.unweighted,
        error_in_context=sum(run.inside),
        error_in_context_empty=nothing,
        error_in_context_without_weights=words,
    )


COLUMNS = (
    ("expl.", 7),
    ("emph.", 7),
    ("inside", 7),
    ("emph. inside", 13),
    ("typed", 6),
    ("s", 7),
    ("s to ref.", 10),
    ("s to U-Net", 11),
)
TABLE_HEAD = f"  {'prompt':44}{'N':>3}  {'method':15}" + "".join(f"{name:>{width}}" for name, width in COLUMNS)


def _table_line(row: Row) -> str:
    text = f"{'-' if row.negative else ' '} {row.prompt}"
    cells = (
        (row.explained, 3),
        (row.emphasis_explained, 3),
        (row.explained_in_context, 3),
        (row.emphasis_in_context, 3),
        (row.typed_weight, 2),
        (row.seconds, 1),
        (row.seconds_to_reference_best, 2),
        (row.seconds_to_unet_best, 2),
    )
    numbers = (_number(value, width, digits) for (value, digits), (_, width) in zip(cells, COLUMNS, strict=True))
    return f"{text[:45]:46}{row.tokens:>3}  {row.method:15}" + "".join(numbers)


def _number(value: float | None, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def _summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    for name, figures in summary["methods"].items():
        for figure, values in figures.items():
            if isinstance(values, dict):
                told = ", ".join(f"{key} {_number(value, 0, 4)}" for key, value in values.items())
                yield f"{name}: {figure}: {told}"
    for gate in summary["gates"]:
        told = "reached" if gate["reached"] else "MISSED"
        value = _number(gate["value"], 0, 3)
        yield f"{gate['method']}: {gate['figure']}: {value}, to reach {gate['to_reach']}: {told}"


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
@click.option("--methods", default=",".join(ALL), show_default=True, help="With commas.")
@click.option("--tokens-factor", default=1.0, show_default=True, type=click.FloatRange(0, min_open=True),
              help="Vectors per token of the prompt.")  # fmt: skip
@click.option("--ceiling", is_flag=True, help="Also what vectors reach that learn in the very contexts.")
@click.option("--random-start", is_flag=True, help="Start the reference from random vectors.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON file, kept after each prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last; the table goes to stderr.")
def main(
    model: str | None,
    file: Path | None,
    count: int,
    seed: int,
    methods: str,
    tokens_factor: float,
    ceiling: bool,
    random_start: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    chosen = [name for name in ALL if name in methods.split(",")]
    if unknown := set(methods.split(",")) - set(chosen):
        raise click.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(ALL)}")
    if ceiling:
        chosen.append(CEILING)
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
        compared = compare(host, case, chosen, seed=seed, random_start=random_start, tokens_factor=tokens_factor)
        for row in compared:
            rows.append(row)
            click.echo(_table_line(row), err=as_json)
        report = {
            "tokens_factor": tokens_factor,
            "rows": [asdict(row) for row in rows],
            "summary": summarise(rows, tokens_factor),
        }
        if out:
            _write(out, report)
    for line in _summary_lines(report["summary"]):
        click.echo(line, err=as_json)
    if as_json:
        click.echo(json.dumps(report))


if __name__ == "__main__":
    main()
