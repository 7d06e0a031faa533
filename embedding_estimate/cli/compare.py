"""`compare`: measures how faithful an embedding file is to a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from embedding_estimate.cli.contexts import contexts_option, flattering
from embedding_estimate.cli.figures import print_json, show_figures
from embedding_estimate.cli.host import HostOptions, host_options, load
from embedding_estimate.cli.notes import Notes, note
from embedding_estimate.cli.options import (
    PathType,
    checked,
    json_option,
    report_option,
    setting_option,
    setting_options,
    typed_settings,
)
from embedding_estimate.cli.printing import show
from embedding_estimate.cli.progress import Bars
from embedding_estimate.cli.sections import Sections
from embedding_estimate.errors import EmbeddingError, SettingsError
from embedding_estimate.estimation import summary
from embedding_estimate.files.names import typed_name, uncallable
from embedding_estimate.settings import BY_EFFORT, FULL_WITH_IMAGES, MEASURES, NOTHING, PARAMETERS, Settings
from embedding_estimate.storage.saving import check_report

BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
WEIGHT = replace(
    BY_NAME["typed_weight"],
    default="",
    help="The weight that the name is typed with, instead of the file's own.",
    minimum=None,
    maximum=None,
)
MEASURE = replace(
    BY_NAME["measure"],
    default=FULL_WITH_IMAGES,
    help="What to measure. Quick: from a few states. Full: by the whole protocol; the 70 images take most of the time.",
    choices=tuple(choice for choice in MEASURES if choice not in (BY_EFFORT, NOTHING)),
)


def _settings(options: Mapping[str, Any], text: str) -> Settings:
    """All but the typed weight, which has no bounds here."""
    typed = typed_settings(options)
    given = [parameter for parameter in (MEASURE, WEIGHT) if parameter.name in typed]
    if problems := [line for parameter in given if (line := parameter.problem(typed[parameter.name]))]:
        raise SettingsError(problems)
    weight = typed.pop("typed_weight", None)
    if weight == 0:
        raise SettingsError(
            ["typed_weight=0: compare does not search for a weight; give the weight that the name is typed with"]
        )
    return checked({"measure": FULL_WITH_IMAGES, **typed, "text": text, "name": "compared"})


@click.command(cls=Sections)
@click.argument("file", type=PathType())
@click.argument("text")
@report_option
@json_option
@contexts_option
@host_options
@setting_options({"prompt_type", "other_prompt", "batch"})
@setting_option(WEIGHT)
@setting_option(MEASURE)
def compare(file: Path, text: str, report: Path | None, as_json: bool, contexts: Sequence[str], **options: Any) -> None:
    """Measures how well the embedding in FILE reproduces the prompt TEXT. Files of other tools work too.

    Weight of the name, clip skip and emphasis mode are read from FILE; options override them.
    """
    settings = _settings(options, text)
    if warning := check_report(report, file.parent):
        note(warning)

    from embedding_estimate.checks import advice
    from embedding_estimate.checks.model_checks import check_contexts
    from embedding_estimate.estimation.listener import Listener
    from embedding_estimate.estimation.trainer import measured
    from embedding_estimate.fidelity import protocol
    from embedding_estimate.files.embedding import read
    from embedding_estimate.objectives.prompts import check_text
    from embedding_estimate.storage.phrases import recorded_phrase, recorded_weight, whole
    from embedding_estimate.teaching.teacher import Task, Teacher
    from embedding_estimate.teaching.words import Word

    embedding, words, weight = read(file), list[Word](), options["typed_weight"]
    if weight is None:
        embedding, words = whole(embedding, file)
        weight = 1.0 if words else recorded_weight(embedding.provenance)
    if line := uncallable(embedding.name):
        note(line)
    called = recorded_phrase(embedding, 1.0) if words else typed_name(embedding.name, weight)
    notes = Notes()
    notes(advice.of_settings(settings))
    host = load(HostOptions.of(options).like(embedding.provenance))
    with host.borrow() as model, Bars() as bars:
        teacher = Teacher(model, replace(Task.of(settings, model, words), typed_weight=weight))
        check_text(teacher, protocol.TRAJECTORY)
        check_contexts(contexts, settings.negative, model)
        notes(advice.of_prompts(settings, model))
        notes(flattering(contexts, embedding.provenance, settings, model))
        if embedding.tokens > (most := model.info.chunk_tokens):
            raise EmbeddingError(
                f"{file.name}: {embedding.tokens} vectors, but a prompt chunk takes {most}; choose another embedding"
            )
        vectors = embedding.fit(model.info.widths).vectors
        figures, images = measured(settings, teacher, vectors, Listener(on_progress=bars), contexts)
        if report:
            from embedding_estimate.reports import report as drawn

            rows = drawn.pictures(model, images)
            facts = [settings.prompt_type.lower(), f"N = {embedding.tokens}", f"model {model.info.name}"]
            sheet = drawn.draw(
                drawn.Report(called, text, facts, figures, pictures=rows, context=figures.pictured_context)
            )
        clip_skip, emphasis = model.info.clip_skip, model.info.emphasis
    if report:  # before anything is printed: nobody may read the output any more
        drawn.save(sheet, report)
    show(f"{called} ({embedding.tokens} vectors) compared with {text}; clip skip {clip_skip}, emphasis {emphasis}\n")
    show_figures(figures, embedding.tokens)
    if report:
        show(f"\nreport: {report}")
    if as_json:
        print_json(
            {
                "path": str(file),
                "name": embedding.name,
                "phrase": called,
                "tokens": embedding.tokens,
                "typed_weight": weight,
                "clip_skip": clip_skip,
                "emphasis": emphasis,
                **summary.of_figures(figures),
                "protocol": figures.protocol,
            }
        )
