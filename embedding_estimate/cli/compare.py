"""`compare`: how faithful any embedding file is to a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from embedding_estimate import summary
from embedding_estimate.cli.figures import print_json, show_figures
from embedding_estimate.cli.host import HostOptions, host_options, load
from embedding_estimate.cli.options import (
    checked,
    json_option,
    report_option,
    setting_options,
    typed_settings,
)
from embedding_estimate.cli.progress import Bars
from embedding_estimate.cli.sections import Sections
from embedding_estimate.saving import check_report


@click.command(cls=Sections)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("text")
@report_option
@json_option
@host_options
@setting_options({"prompt_type", "other_prompt", "batch"})
def compare(file: Path, text: str, report: Path | None, as_json: bool, **options: Any) -> None:
    """Measures how faithful the embedding in FILE is to the prompt TEXT, whatever made it."""
    settings = checked({**typed_settings(options), "text": text, "name": "compared"})
    if warning := check_report(report, file.parent):
        click.echo(f"Note: {warning}", err=True)

    from embedding_estimate import fidelity
    from embedding_estimate.embedding import read
    from embedding_estimate.progress import Progress
    from embedding_estimate.teacher import Task

    embedding = read(file)
    host = load(HostOptions.of(options))
    with host.borrow() as model, Bars() as bars:
        figures, images = fidelity.measure(
            model,
            Task.of(settings, model),
            {key: value.to(model.device) for key, value in embedding.fit(model.info.widths).vectors.items()},
            batch=settings.batch,
            on_progress=lambda done, total: bars(Progress("measure", done, total)),
        )
    click.echo(f"{embedding.name} ({embedding.tokens} vectors) beside {text}\n")
    show_figures(figures, embedding.tokens)
    if report:
        from embedding_estimate import report as drawn

        with host.borrow() as model:
            rows = drawn.pictures(model, images)
            facts = [settings.prompt_type.lower(), f"N = {embedding.tokens}", f"model {model.info.name}"]
        drawn.save(drawn.draw(drawn.Report(embedding.name, text, facts, figures, pictures=rows)), report)
        click.echo(f"\nreport: {report}")
    if as_json:
        print_json(
            {
                "path": str(file),
                "name": embedding.name,
                "tokens": embedding.tokens,
                **summary.of_figures(figures),
                "in_template": figures.in_template,
                "protocol": figures.protocol,
            }
        )
