"""`ui`: the tab of the WebUI extension, without a WebUI."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from embedding_estimate.cli.estimate import folder_option
from embedding_estimate.cli.host import HostOptions, host_options, load
from embedding_estimate.cli.sections import Sections
from embedding_estimate.storage.saving import made

LOOPBACK = "127.0.0.1"


@click.command(cls=Sections)
@folder_option
@click.option(
    "--host-address",
    default=LOOPBACK,
    metavar="ADDRESS",
    help=f"Address to listen on. With any other than {LOOPBACK}, everyone who can reach it "
    f"can use the app.  [default: {LOOPBACK}]",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="INTEGER",
    help="Port to listen on.  [default: the first free one from 7860]",
)
@click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
@host_options
def ui(out: Path, host_address: str, port: int | None, no_browser: bool, **options: Any) -> None:
    """Opens the tab in the browser, without a WebUI.

    Prompts can use the embeddings in the --embeddings folder; without that option, those in the --out folder.
    """
    hosted = HostOptions.of(options)
    if hosted.embeddings is None and out.is_dir():
        hosted = replace(hosted, embeddings=out)
    with made(out):
        host = load(hosted)
        from embedding_estimate import app

        app.serve(
            app.Standalone(host, out),
            address=host_address,
            port=port,
            in_browser=not no_browser,
            on_start=lambda url: click.echo(
                f"{url} is ready. Press Ctrl-C to stop; a running job saves its best vectors", err=True
            ),
        )
