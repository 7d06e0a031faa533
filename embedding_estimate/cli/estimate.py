"""`estimate`: a prompt becomes an embedding file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedding_estimate.cli.contexts import contexts_option
from embedding_estimate.cli.curve import run_curve
from embedding_estimate.cli.dry_run import run_dry
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
from embedding_estimate.cli.resume import refuse_beside, resumed
from embedding_estimate.cli.sections import Sections
from embedding_estimate.errors import EmbeddingError, SettingsError
from embedding_estimate.estimation import summary
from embedding_estimate.fidelity import wording
from embedding_estimate.files import names
from embedding_estimate.files.free_name import free_name
from embedding_estimate.progress import StopReason, StopToken
from embedding_estimate.settings import NOTHING, QUICK_WITH_IMAGES, Settings
from embedding_estimate.storage import saving
from embedding_estimate.storage.snapshots import Snapshots

if TYPE_CHECKING:
    from embedding_estimate.files.embedding import Embedding
    from embedding_estimate.files.tensor_tree import Tree
    from embedding_estimate.jobs.pipeline import Made

FOLDER = Path("embeddings")
OF_FILES = ("name", "overwrite", "format", "save_every", "preview_every", "measure", "tokens")
"""Settings that a curve does without: what is saved and how, and the number of vectors."""


@dataclass(frozen=True)
class Done:
    """An estimate that is saved."""

    settings: Settings
    made: Made
    interrupted: bool

    def finish(self, as_json: bool) -> None:
        """The last line and the exit code."""
        if as_json:
            facts = summary.of_estimate(
                self.settings, self.made.estimate, self.made.paths, self.made.seconds, self.interrupted
            )
            print_json(facts)
        if self.interrupted:
            raise click.exceptions.Exit(INTERRUPTED)
        if self.made.estimate.stopped.by_error:
            raise click.exceptions.Exit(1)


def folder_option(command: Any) -> Any:
    """Adds `--out`."""
    return click.option(
        "--out",
        type=PathType(),
        default=FOLDER,
        metavar="DIR",
        help=f"The folder of embeddings to save in. It is created if it does not exist.  [default: {FOLDER}]",
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
    help="Take the settings from an embedding file; options override the file.",
)
@click.option(
    "--resume",
    metavar="NAME",
    help="Go on with the estimate of this name that was cut off, with its settings. TEXT is left out.",
)
@click.option(
    "--curve", metavar="N,N,...", help="Only find out how the figures depend on the number of vectors: 1,2,4,8."
)
@click.option(
    "--infotext",
    is_flag=True,
    help="TEXT is an image's infotext: take prompts, sampler, steps, CFG scale, size and seed from it.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only show the plan: phases, passes of the U-Net, seconds and memory. Trains and saves nothing.",
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
    resume: str | None,
    curve: str | None,
    infotext: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Makes an embedding that does what TEXT does.

    TEXT is a prompt in the WebUI's syntax. Type -- before a text that begins with a dash. Without --name, a free name
    is made from the text. Ctrl-C saves the best vectors so far; a second Ctrl-C discards them.
    """
    typed = typed_settings({**options, "text": text})
    if resume is not None:
        others = {"--from": source is not None, "--curve": curve is not None, "--infotext": infotext}
        refuse_beside({**others, "--dry-run": dry_run})
        goes_on = resumed(resume, out, typed, contexts, HostOptions.of(options))
        run(goes_on.settings, goes_on.hosted, out, report, goes_on.contexts, goes_on.state).finish(as_json)
        return
    hosted = HostOptions.of(options)
    if dry_run and curve is not None:
        raise SettingsError(["--dry-run: shows the plan of one estimate; leave it out, or leave --curve out"])
    kept: dict[str, Any] = {}
    if source is not None:
        kept, hosted = _from_file(source, typed, hosted)
    if infotext:
        negative = {**kept, **typed}.get("prompt_type") == "Negative Prompt"
        typed = from_infotext(text or "", typed, negative=negative)
    typed = {**kept, **typed}
    if curve is not None:
        run_curve(_of_a_curve(typed, options), hosted, curve, report, as_json, contexts)
        return
    named = _named(typed, [folder for folder in (out, hosted.embeddings) if folder])
    settings = checked(named)
    if report is None and settings.measure == QUICK_WITH_IMAGES:
        note(f"--measure {QUICK_WITH_IMAGES}: no images without --report, which shows them")
    if contexts and settings.measure_used == NOTHING:
        note("--contexts: no effect with --measure Nothing")
    if dry_run:
        run_dry(settings, hosted, out, report, contexts, as_json)
    else:
        run(settings, hosted, out, report, contexts).finish(as_json)


def _named(typed: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    """What was typed, with a name that is free in the folders; a private prompt does not show in it."""
    if "name" in typed:
        return {**typed}
    about = "" if typed.get("private") else str(typed.get("text", ""))[:1000]  # its first words are enough
    return {**typed, "name": free_name(about, folders)}


def _of_a_curve(typed: Mapping[str, Any], options: Mapping[str, Any]) -> Settings:
    """The settings of a curve, which saves nothing."""
    if idle := [f"--{name.replace('_', '-')}" for name in OF_FILES if options[name] is not None]:
        note(f"{', '.join(idle)}: no effect with --curve, which compares numbers of vectors and saves none")
    return checked({**typed, "name": "curve"})


def run(
    settings: Settings,
    hosted: HostOptions,
    folder: Path,
    picture: Path | None,
    contexts: Sequence[str] = (),
    state: Tree | None = None,
) -> Done:
    """Estimates, saves, prints and draws, measured in `contexts` or the model's; goes on from `state`. All that can be
    wrong with the places is found before the work."""
    with saving.made(folder):
        saving.check_names(settings, folder)
        if warning := saving.check_report(picture, folder):
            note(warning)
    from embedding_estimate.checks import advice
    from embedding_estimate.jobs.pipeline import Pipeline
    from embedding_estimate.reports import report

    notes = Notes()
    notes(advice.of_settings(settings))
    stop = StopToken()
    snapshots = Snapshots(settings, folder, stop, on_note=note)
    if settings.save_every or settings.preview_every:
        snapshots.try_folder()
    host = load(hosted)
    with interruptible(stop), Bars() as bars:  # so that no signal disturbs what is put back
        pipeline = Pipeline(
            settings=settings,
            folder=folder,
            stop=stop,
            snapshots=snapshots,
            on_note=note,
            on_notes=notes,
            on_progress=bars,
            on_saved=functools.partial(_told_as_saved, settings, stop, bars),
            draws_report=picture is not None,
            host_options=hosted.to_dict(),
        )
        beside = [path.stem for path in names.files(folder) if path.suffix.lower() in names.EXTENSIONS]
        made = pipeline.run(host, contexts=contexts, beside=beside, state=state)
        interrupted = stop.stopped

    if picture and made.report:  # before anything is printed: nobody may read the output any more
        report.save(made.report, picture)
    _tell(made)
    if snapshots.written:
        show(f"snapshots: {snapshots.folder}")
    if picture:
        show(f"report: {picture}")
    return Done(settings, made, interrupted)


def _told_as_saved(
    settings: Settings, stop: StopToken, bars: Bars, embedding: Embedding, paths: Sequence[Path]
) -> None:
    """Says that the embedding is there, where it is measured next."""
    if settings.measure_used == NOTHING or stop.stopped:
        return
    bars.close()
    if embedding.provenance["stopped"] != StopReason.FAILED:
        show(f"{saving.listed(paths)}: saved, and measured now; Ctrl-C leaves the figures out", err=True)


def _tell(made: Made) -> None:
    result, embedding = made.estimate, made.estimate.embedding
    vectors = "1 vector" if embedding.tokens == 1 else f"{embedding.tokens} vectors"
    show(f"{saving.listed(made.paths)}: {vectors}, {wording.typed_as(embedding.name, result.phrase)}\n")
    if result.fidelity:
        show_figures(result.fidelity, embedding.tokens)
    else:
        click.echo(f"  the best of {result.steps} steps; not measured, see `compare`")
    measured = ", the rest to measure" if result.fidelity else ""
    click.echo(
        f"\n{result.steps} steps ({result.stopped}) in {made.seconds:.1f} s: "
        f"{result.seconds_prepare:.1f} s to prepare, "
        f"{result.seconds_train:.1f} s to train{measured}\n"
        f"the longest vector is {result.norm_ratio:.1f} times as long as that of a usual token"
    )
    for line in result.notes:
        show(f"note: {line}")


def _from_file(source: Path, typed: dict[str, Any], hosted: HostOptions) -> tuple[dict[str, Any], HostOptions]:
    """Settings as a file tells them, and host options, under what was typed.

    Raises `EmbeddingError` for a file that does not tell enough. Neither whether to overwrite nor what to measure is
    taken from it.
    """
    from embedding_estimate.files.embedding import read

    provenance = read(source).provenance
    settings = provenance.get("settings")
    if not isinstance(settings, dict):
        raise EmbeddingError(f"{source.name}: does not say how it was made; give TEXT and the settings instead")
    if "text" not in settings and "text" not in typed:
        raise EmbeddingError(
            f"{source.name}: its prompt was kept out of it; give TEXT, and --other-prompt, --initial-prompt and "
            "--templates where they were used"
        )
    model = provenance.get("model")
    if hosted.model is None and isinstance(model, dict):
        note(f"it was made with the model {model.get('name')}; see --model")
    kept = {name: value for name, value in settings.items() if name not in ("overwrite", "measure")}
    return kept, hosted.like(provenance)
