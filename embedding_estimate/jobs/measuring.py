"""The whole protocol for an embedding that is saved, in a job that gives way to everybody."""

from __future__ import annotations

from dataclasses import replace

from PIL.Image import Image

from embedding_estimate.errors import ModelError
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.estimation.trainer import Estimate, measured
from embedding_estimate.model.giving_way import GivingWay
from embedding_estimate.model.host import Host, ModelInfo
from embedding_estimate.progress import StopToken
from embedding_estimate.reports import report
from embedding_estimate.settings import FULL_WITH_IMAGES, Settings
from embedding_estimate.teaching.recall import Recall
from embedding_estimate.teaching.teacher import Teacher


def measure_fully(
    settings: Settings, estimate: Estimate, host: Host, listener: Listener, stop: StopToken, recall: Recall
) -> tuple[Estimate, dict[str, list[Image]]]:
    """The estimate with the figures of the whole protocol, and same-seed images by row of the report.

    Raises `ModelError` if the host has another model than the one that the embedding was made with, and `Stopped` for
    a stop.
    """
    with GivingWay(host, stop.check) as model:
        _check_the_same(estimate, model.info)
        recall.begin()
        teacher = Teacher(model, estimate.task, recall=recall)
        asked = replace(settings, measure=FULL_WITH_IMAGES)
        figures, images = measured(asked, teacher, estimate.embedding.vectors, listener, contexts=())
        return replace(estimate, fidelity=figures), report.pictures(model, images)


def _check_the_same(estimate: Estimate, info: ModelInfo) -> None:
    made = estimate.embedding.provenance
    mine = (info.hash, info.clip_skip, info.emphasis, list(info.networks))
    if mine != (made["model"]["hash"], made["clip_skip"], made["emphasis"], made.get("networks", [])):
        raise ModelError(
            f"{estimate.embedding.name} was made with {made['model']['name']}, clip skip {made['clip_skip']} and "
            f"emphasis {made['emphasis']}: choose these again to measure it"
        )
