"""`demo`: makes one embedding with the bundled model, measures it and draws the report."""

from __future__ import annotations

from pathlib import Path

import click

from embedding_estimate.cli.estimate import folder_option, run
from embedding_estimate.cli.host import HostOptions
from embedding_estimate.cli.options import json_option, report_option
from embedding_estimate.cli.printing import show
from embedding_estimate.fidelity.wording import number
from embedding_estimate.settings import FULL_WITH_IMAGES, Settings

PROMPT = "(red:1.5) circle"
NAME = "demo-red-circle"
REPORT = Path(f"{NAME}.png")
NEXT = """
{report} shows the same seeds with the prompt, the embedding, the words without weights and the empty prompt.
Its lower rows show them among other words: {context}
Among other words, the embedding reproduces {explained} of the prompt's effect (1 is all of it),
and {emphasis} of the effect of its weights (0 is no better than the words without weights).

Next:
  embedding-estimate inspect {path}
  embedding-estimate estimate "(striped:1.6), a green star" --report star.png
  embedding-estimate estimate "YOUR PROMPT" --model YOUR_MODEL.safetensors
  embedding-estimate estimate --help"""


@click.command
@folder_option
@report_option
@json_option
def demo(out: Path, report: Path | None, as_json: bool) -> None:
    """Makes an embedding with the bundled model, and a picture of how well it works."""
    report = report or REPORT
    click.echo(
        f"The prompt is {PROMPT}. Its weight is applied after the text encoder, but an embedding enters before it.\n"
        "So vectors are trained that make the model predict what it predicts for the prompt.\n",
        err=True,
    )
    settings = Settings(text=PROMPT, name=NAME, overwrite=True, measure=FULL_WITH_IMAGES)
    done = run(settings, HostOptions(), out, report)
    if figures := done.made.estimate.fidelity:
        show(
            NEXT.format(
                report=report,
                path=done.made.paths[0],
                context=figures.pictured_context.replace("{}", NAME),
                explained=number(figures.explained_in_context),
                emphasis=number(figures.emphasis_in_context),
            )
        )
    done.finish(as_json)
