"""Help texts in sections, because a command has many options."""

from __future__ import annotations

from dataclasses import fields

import click

from embedding_estimate.cli.host import HostOptions
from embedding_estimate.settings import PARAMETERS

SECTIONS = {
    "Model": {field.name for field in fields(HostOptions)},
    "Settings": {parameter.name for parameter in PARAMETERS},
}


class Sections(click.Command):
    """A command whose help lists its own options, the model's options and the settings separately."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records: dict[str, list[tuple[str, str]]] = {"Options": [], "Model": [], "Settings": []}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record and isinstance(option, click.Option):
                title = next((title for title, names in SECTIONS.items() if option.name in names), "Options")
                records[title].append(record)
        for title, listed in records.items():
            if listed:
                with formatter.section(title):
                    formatter.write_dl(listed)
