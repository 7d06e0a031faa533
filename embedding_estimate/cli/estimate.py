"""`estimate`: a prompt becomes an embedding file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_estimate.cli.contexts import contexts_option
from embedding_estimate.cli.curve import run_curve
from embedding_estimate.cli.figures import print_json, show_figures
from embedding_estimate.cli.host import HostOptions, host_options, load
from embedding_estimate.cli.infotext import from_infotext
from embedding_estimate.cli.notes import Notes, note
from embedding_estimate.cli.options import (
    PathType,
    checked,
    json_option,
    report_option,
    setting_options,
    typed_settings,
)
from embedding_estimate.cli.printing import show
from embedding_estimate.cli.progress import INTERRUPTED, Bars, interruptible
from embedding_estimate.cli.sections import Sections
from embedding_estimate.errors import EmbeddingError, Interrupted
from embedding_estimate.estimation import summary
from embedding_estimate.fidelity import wording
from embedding_estimate.files import names
from embedding_estimate.files.free_name import free_name
from embedding_estimate.progress import StopReason, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage import saving
from embedding_estimate.storage.snapshots import Snapshots

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedding_estimate.estimation.trainer import Estimate
    from embedding_estimate.fidelity.protocol import Images
    from embedding_estimate.files.embedding import Embedding
    from embedding_estimate.model.host import BorrowedModel

FOLDER = Path("embeddings")
OF_FILES = ("name", "overwrite", "format", "save_every", "preview_every", "measure", "tokens")
"""Settings that a curve does without: what is saved and how, and the number of vectors."""


@dataclass(frozen=True)
class Done:
    """An estimate that is saved."""

    settings: Settings
    result: Estimate
    paths: Sequence[Path]
    seconds: float
    interrupted: bool

    def finish(self, as_json: bool) -> None:
        """The last line and the exit code."""
        if as_json:
            told = summary.of_estimate(self.settings, self.result, self.paths, self.seconds, self.interrupted)
            print_json(told)
        if self.interrupted:
            raise click.exceptions.Exit(INTERRUPTED)
        if self.result.stopped == StopReason.FAILED:
            raise click.exceptions.Exit(1)


def folder_option(command: Any) -> Any:
    """Adds `--out`."""
    return click.option(
        "--out",
        type=PathType(),
        default=FOLDER,
        metavar="DIR",
        help=f"The folder of embeddings to save in, made where it is missing.  [default: {FOLDER}]",
    )(command)


@click.command(cls=Sections)
@click.argument("text", required=False)
@folder_option
@report_option
@json_option
@contexts_option
@click.option(
    "--from",
    "source",
    type=PathType(),
    metavar="FILE",
    help="Take the settings from a file made before; what else is typed goes first.",
)
@click.option(
    "--curve", metavar="N,N,...", help="Only find out how the figures depend on the number of vectors: 1,2,4,8."
)
@click.option(
    "--infotext",
    is_flag=True,
    help="TEXT is an image's infotext: take prompts, sampler, steps, CFG scale, size and seed from it.",
)
@host_options
@setting_options()
def estimate(
    text: str | None,
    out: Path,
    report: Path | None,
    as_json: bool,
    contexts: Sequence[str],
    source: Path | None,
    curve: str | None,
    infotext: bool,
    **options: Any,
) -> None:
    """Makes an embedding that does what TEXT does.

    TEXT is a prompt in the WebUI's syntax. Without --name one is made from its words. Ctrl-C saves the best so far,
    twice drops it. Text that begins with a dash goes behind --.
    """
    typed = typed_settings({**options, "text": text})
    if infotext:
        typed = from_infotext(text or "", typed)
    hosted = HostOptions.of(options)
    if source is not None:
        typed, hosted = _from_file(source, typed, hosted)
    if curve is not None:
        if idle := [f"--{name.replace('_', '-')}" for name in OF_FILES if options[name] is not None]:
            note(f"{', '.join(idle)}: without effect beside --curve, which tries numbers of vectors and saves none")
        typed["name"] = "curve"  # nothing is saved
    if "name" not in typed:  # in which a private prompt must not show
        about = "" if typed.get("private") else str(typed.get("text", ""))[:1000]  # its first words are enough
        typed["name"] = free_name(about, [folder for folder in (out, hosted.embeddings) if folder])
    settings = checked(typed)
    if curve is None:
        if contexts and settings.measure == "Nothing":
            note("--contexts: without effect beside --measure Nothing")
        run(settings, hosted, out, report, contexts).finish(as_json)
    else:
        run_curve(settings, hosted, curve, report, as_json, contexts)


def run(
    settings: Settings, hosted: HostOptions, folder: Path, picture: Path | None, contexts: Sequence[str] = ()
) -> Done:
    """Estimates, saves, prints and draws, measured in `contexts` or the model's. All that can be wrong with the places
    is found before the work."""
    with ExitStack() as stack:
        stack.enter_context(saving.made(folder))
        saving.check_names(settings, folder)
        if warning := saving.check_report(picture, folder):
            note(warning)
        from embedding_estimate.checks import advice
        from embedding_estimate.estimation import trainer
        from embedding_estimate.fidelity.previews import Previews
        from embedding_estimate.reports import report

        notes = Notes()
        notes(advice.of_settings(settings))
        stop = StopToken()
        snapshots = Snapshots(settings, folder, stop, on_note=note)
        on_the_way = settings.save_every or settings.preview_every
        if on_the_way:
            snapshots.try_folder()
        host = load(hosted)
        stack.enter_context(interruptible(stop))  # the outermost, so that no signal disturbs what is put back
        if on_the_way:
            stack.enter_context(snapshots.kept())
        file = stack.enter_context(saving.Result(settings, folder, stop, on_note=note))
        started = time.perf_counter()
        pictures: dict[str, list[Image]] = {}
        with Bars() as bars:

            def decode(model: BorrowedModel, images: Images) -> None:
                if picture:
                    pictures.update(report.pictures(model, images))

            def keep(embedding: Embedding) -> None:
                paths = file.save(embedding)
                if settings.measure == "Nothing" or stop.stopped:
                    return
                bars.close()
                if embedding.provenance["stopped"] != StopReason.FAILED:
                    show(f"{saving.listed(paths)}: saved, and measured now; Ctrl-C leaves the figures out", err=True)

            result = trainer.estimate(
                settings,
                host,
                contexts=contexts,
                beside=[path.stem for path in names.files(folder) if path.suffix.lower() in names.EXTENSIONS],
                on_names=file.check,
                on_notes=notes,
                on_progress=bars,
                on_snapshot=snapshots.write,
                on_preview=Previews(snapshots.draw, on_failure=note).make,
                on_trained=keep,
                on_images=decode,
                stop=stop,
            )
        seconds = time.perf_counter() - started
        if stop.dropped:
            raise Interrupted("interrupted; the result was dropped")
        paths = file.save(result.embedding)
        interrupted = stop.stopped

    if picture:  # before anything is printed, whose reader may have left
        report.save(report.draw(report.of_estimate(settings, result, pictures)), picture)
    _tell(result, paths, seconds)
    if snapshots.written:
        show(f"snapshots: {snapshots.folder}")
    if picture:
        show(f"report: {picture}")
    return Done(settings, result, paths, seconds, interrupted)


def _tell(result: Estimate, paths: Sequence[Path], seconds: float) -> None:
    embedding = result.embedding
    vectors = "1 vector" if embedding.tokens == 1 else f"{embedding.tokens} vectors"
    show(f"{saving.listed(paths)}: {vectors}, {wording.typed_as(embedding.name, result.phrase)}\n")
    if result.fidelity:
        show_figures(result.fidelity, embedding.tokens)
    else:
        click.echo(f"  the best of {result.steps} steps; not measured, see `compare`")
    measured = ", the rest to measure" if result.fidelity else ""
    click.echo(
        f"\n{result.steps} steps ({result.stopped}) in {seconds:.1f} s: {result.seconds_prepare:.1f} s to prepare, "
        f"{result.seconds_train:.1f} s to train{measured}; longest vector {result.norm_ratio:.1f} times a word's"
    )
    for line in result.notes:
        show(f"note: {line}")


def _from_file(source: Path, typed: dict[str, Any], hosted: HostOptions) -> tuple[dict[str, Any], HostOptions]:
    """Settings and host options as a file tells them, under what was typed.

    Raises `EmbeddingError` for a file that does not tell enough. Whether to overwrite is not taken from it.
    """
    from embedding_estimate.files.embedding import read

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
        note(f"it was made with the model {model.get('name')}; see --model")
    return {**{name: value for name, value in settings.items() if name != "overwrite"}, **typed}, hosted.like(told)
