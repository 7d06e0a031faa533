"""`estimate`: a prompt becomes an embedding file."""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_estimate import failures, names, saving, summary, wording
from embedding_estimate.cli.curve import run_curve
from embedding_estimate.cli.figures import print_json, printable, show_figures
from embedding_estimate.cli.host import HostOptions, host_options, load
from embedding_estimate.cli.options import (
    Place,
    checked,
    json_option,
    report_option,
    setting_options,
    typed_settings,
)
from embedding_estimate.cli.progress import INTERRUPTED, Bars, interruptible
from embedding_estimate.cli.sections import Sections
from embedding_estimate.errors import EmbeddingError, Interrupted
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.snapshots import Snapshots

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedding_estimate.embedding import Embedding
    from embedding_estimate.fidelity import Images
    from embedding_estimate.host import BorrowedModel
    from embedding_estimate.hosts.standalone.host import StandaloneHost
    from embedding_estimate.trainer import Estimate

FOLDER = Path("embeddings")


@dataclass(frozen=True)
class Done:
    """An estimate that is saved."""

    settings: Settings
    result: Estimate
    path: Path
    seconds: float
    interrupted: bool

    def finish(self, as_json: bool) -> None:
        """The last line and the exit code."""
        if as_json:
            told = summary.of_estimate(self.settings, self.result, self.path, self.seconds, self.interrupted)
            print_json(told)
        if self.interrupted:
            raise click.exceptions.Exit(INTERRUPTED)
        if self.result.stopped == failures.FAILED:
            raise click.exceptions.Exit(1)


def folder_option(command: Any) -> Any:
    return click.option(
        "--out",
        type=Place(),
        default=FOLDER,
        metavar="DIR",
        help=f"The folder of embeddings to save in, made where it is missing.  [default: {FOLDER}]",
    )(command)


@click.command(cls=Sections)
@click.argument("text", required=False)
@folder_option
@report_option
@json_option
@click.option(
    "--from",
    "source",
    type=Place(),
    metavar="FILE",
    help="Take the settings from a file made before; what else is typed goes first.",
)
@click.option(
    "--curve", metavar="N,N,...", help="Only find out how the figures depend on the number of vectors: 1,2,4,8."
)
@host_options
@setting_options()
def estimate(
    text: str | None,
    out: Path,
    report: Path | None,
    as_json: bool,
    source: Path | None,
    curve: str | None,
    **options: Any,
) -> None:
    """Makes an embedding that does what TEXT does.

    TEXT is a prompt in the WebUI's syntax. Without --name one is made from its words. Ctrl-C saves the best so far,
    twice drops it. Text that begins with a dash goes behind --.
    """
    typed = typed_settings({**options, "text": text})
    hosted = HostOptions.of(options)
    if source is not None:
        typed, hosted = _from_file(source, typed, hosted)
    if curve is not None:
        typed["name"] = "curve"  # nothing is saved
    if "name" not in typed:  # in which a private prompt must not show
        about = "" if typed.get("private") else str(typed.get("text", ""))
        typed["name"] = free_name(about, [folder for folder in (out, hosted.embeddings) if folder])
    settings = checked(typed)
    if curve is None:
        run(settings, hosted, out, report).finish(as_json)
    else:
        run_curve(settings, hosted, curve, report, as_json)


def run(settings: Settings, hosted: HostOptions, folder: Path, picture: Path | None) -> Done:
    """Estimates, saves, prints and draws. All that can be wrong with the places is found before the work."""
    with ExitStack() as stack:
        stack.enter_context(saving.made(folder))
        names.target(settings.name, folder, extension=f".{settings.format}", overwrite=settings.overwrite)
        if warning := saving.check_report(picture, folder):
            _note(warning)
        stop = StopToken()
        snapshots = Snapshots(settings, folder, stop, on_note=_note)
        on_the_way = settings.save_every or settings.preview_every
        if on_the_way:
            snapshots.try_folder()
        host = load(hosted)
        warnings = _names_beside(settings.name, folder, host)
        from embedding_estimate import report, trainer
        from embedding_estimate.previews import Previews

        stack.enter_context(interruptible(stop))  # the outermost, so that no signal disturbs what is put back
        if on_the_way:
            stack.enter_context(snapshots.kept())
        file = stack.enter_context(saving.Result(settings, folder, stop, on_failure=_note))
        started = time.perf_counter()
        pictures: dict[str, list[Image]] = {}
        with Bars() as bars:

            def decode(model: BorrowedModel, images: Images) -> None:
                if picture:
                    pictures.update(report.pictures(model, images))

            def keep(embedding: Embedding) -> None:
                path = file.save(embedding)
                bars.close()
                if embedding.provenance["stopped"] != failures.FAILED:
                    click.echo(f"{path}: saved, and measured now; Ctrl-C leaves the figures out", err=True)

            result = trainer.estimate(
                settings,
                host,
                on_progress=bars,
                on_snapshot=snapshots.write,
                on_preview=Previews(snapshots.draw, on_failure=_note).make,
                on_trained=keep,
                on_images=decode,
                stop=stop,
            )
        seconds = time.perf_counter() - started
        if stop.dropped:
            raise Interrupted("interrupted; the result was dropped")
        result = replace(result, notes=list(dict.fromkeys([*warnings, *result.notes])))
        path = file.save(result.embedding)
        interrupted = stop.stopped

    if picture:  # before anything is printed, whose reader may have left
        report.save(report.draw(report.of_estimate(settings, result, pictures)), picture)
    _tell(result, path, seconds)
    if snapshots.written:
        click.echo(f"snapshots: {snapshots.folder}")
    if picture:
        click.echo(f"report: {picture}")
    return Done(settings, result, path, seconds, interrupted)


def _names_beside(name: str, folder: Path, host: StandaloneHost) -> list[str]:
    """How the name and those in the folder get into each other's way; told at once, for it may be changed yet."""
    others = [file.stem for file in names.files(folder) if file.suffix.lower() in names.EXTENSIONS]
    with host.borrow() as model:
        found = names.warnings(name, model.token_ids, others)
    for line in found:
        _note(line)
    return found


def _note(text: str) -> None:
    click.echo(f"Note: {text}", err=True)


def _tell(result: Estimate, path: Path, seconds: float) -> None:
    embedding = result.embedding
    vectors = "1 vector" if embedding.tokens == 1 else f"{embedding.tokens} vectors"
    click.echo(f"{path}: {vectors}, {wording.typed_as(embedding.name, result.typed_weight)}\n")
    if result.fidelity:
        show_figures(result.fidelity, embedding.tokens)
    else:
        click.echo(f"  the best of {result.steps} steps; not measured, see `compare`")
    measured = ", the rest to measure" if result.fidelity else ""
    click.echo(
        f"\n{result.steps} steps ({result.stopped}) in {seconds:.1f} s: {result.seconds_prepare:.1f} s to prepare, "
        f"{result.seconds_train:.1f} s to train{measured}; longest vector {result.norm_ratio:.1f} times a word's"
    )
    for note in result.notes:
        click.echo(f"note: {note}")


def _from_file(source: Path, typed: dict[str, Any], hosted: HostOptions) -> tuple[dict[str, Any], HostOptions]:
    """Settings and host options as a file tells them, under what was typed.

    Raises `EmbeddingError` for a file that does not tell enough. Whether to overwrite is not taken from it.
    """
    from embedding_estimate.embedding import read

    told = read(source).provenance
    settings = told.get("settings")
    if not isinstance(settings, dict):
        raise EmbeddingError(f"{source.name}: does not say how it was made; give TEXT and the settings instead")
    if "text" not in settings and "text" not in typed:
        raise EmbeddingError(
            f"{source.name}: its prompt was kept out of it; give TEXT, and --other-prompt, --initial-prompt and "
            "--templates where they were used"
        )
    model = told.get("model")
    if hosted.model is None and isinstance(model, dict):
        click.echo(f"Note: it was made with the model {printable(str(model.get('name')))}; see --model", err=True)
    return {**{name: value for name, value in settings.items() if name != "overwrite"}, **typed}, hosted.like(told)


def free_name(text: str, folders: Sequence[Path]) -> str:
    """A name that says what the text is about, is no ordinary word, and is free beside those in these folders."""
    words = re.findall(r"[^\W\d_]+", unicodedata.normalize("NFC", re.sub(r"<[^>]*>", " ", text)))
    about = [word.lower() for word in words if word not in ("AND", "BREAK")][:3]
    stem = "-".join(about if len(about) > 1 else [*about, "embedding"])
    if not about or names.problems(stem):
        stem = "an-embedding"
    first = (f"{number}-{stem}" for number in range(2, 10))  # behind it, the name without would begin this one
    beside = [file for folder in folders for file in names.files(folder)]
    clear = (name for name in (stem, *first) if not names.beginning_alike(name, beside))
    return next(clear, f"{secrets.token_hex(3)}-{stem}")
