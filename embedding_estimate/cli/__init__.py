"""The command line: `embedding-estimate demo | estimate | inspect | compare | convert | ui`.

Exit codes: 0 done, 1 the model failed or memory ran out (vectors that there are by then are saved), 2 wrong input, 130
interrupted. Figures go to stdout, progress and notes to stderr. Heavy modules are imported only when a command needs
them.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Any

import click

from embedding_estimate import __version__
from embedding_estimate.cli.compare import compare
from embedding_estimate.cli.convert import convert
from embedding_estimate.cli.demo import demo
from embedding_estimate.cli.estimate import estimate
from embedding_estimate.cli.inspect import inspect
from embedding_estimate.cli.printing import show
from embedding_estimate.cli.progress import INTERRUPTED, ending_in_order
from embedding_estimate.cli.ui import ui
from embedding_estimate.errors import EstimateError, Interrupted
from embedding_estimate.errors.out_of_memory import ran_out

NO_MEMORY = "out of memory: use --checkpointing or --batch 1, or lower --width or --height, and try again"


class Commands(click.Group):
    """Turns errors that the package raises on purpose into lines on stderr and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        # before torch is imported: threads that spin while they wait make each other wait on a busy machine
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        _escape_what_cannot_be_shown()
        try:
            with ending_in_order():
                return super().invoke(context)
        except Interrupted as error:
            show(error, err=True)
            context.exit(INTERRUPTED)
        except KeyboardInterrupt:
            context.exit(INTERRUPTED)
        except (EstimateError, OSError) as error:
            if isinstance(error, BrokenPipeError):  # nobody reads the output any more: click handles that
                raise
            for line in str(error).splitlines():
                show(f"Error: {line}", err=True)
            context.exit(2)
        except (click.exceptions.Exit, click.Abort):  # which are runtime errors, and need no torch to be known
            raise
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            show(f"Error: {NO_MEMORY}", err=True)
            context.exit(1)


def _escape_what_cannot_be_shown() -> None:
    """Prompts may have characters that the terminal cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="embedding-estimate")
def main() -> None:
    """Makes a textual-inversion embedding from a prompt with its weights. No images and no tags are needed.

    Start with `embedding-estimate demo`.
    """


def _log(context: click.Context, option: click.Parameter, verbose: bool) -> None:
    """Shows the package's log messages during the command. Errors are always shown."""
    if not verbose:
        return
    logger, handler = logging.getLogger("embedding_estimate"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)

    def restore() -> None:
        logger.setLevel(before)
        logger.removeHandler(handler)

    context.call_on_close(restore)


for command in (demo, estimate, inspect, compare, convert, ui):
    option = click.Option(["--verbose"], is_flag=True, expose_value=False, callback=_log, help="Print log messages.")
    command.params.append(option)
    main.add_command(command)
