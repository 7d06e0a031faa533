"""How many vectors are enough, found out where the settings leave it open.

1, 2, 4 and so on are trained in turn, up to as many as the text has tokens, on one preparation. The fewest are taken
that explain nearly what the best of them do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from embedding_estimate.embedding import Embedding
from embedding_estimate.host import BorrowedModel, Vectors
from embedding_estimate.initial import exact_note
from embedding_estimate.objectives import Objective, starting_from
from embedding_estimate.out_of_memory import ran_out
from embedding_estimate.progress import Progress
from embedding_estimate.settings import Settings
from embedding_estimate.teacher import Teacher
from embedding_estimate.training import Job, Training, train
from embedding_estimate.vectors import VectorSpace, count

TOLERANCE = 0.02  # of `explained` on the select set, which more vectors have to bring
NOTHING = 1e-8  # of the empty prompt's error: rounding, with the prompt's own token vectors for one


def counts(settings: Settings, model: BorrowedModel) -> list[int]:
    """The numbers of vectors to choose from: one, unless `tokens` is 0."""
    if settings.token_source == "Initial prompt":
        return [count(model.token_vectors(settings.initial_prompt))]
    if settings.tokens:
        return [settings.tokens]
    most = min(max(count(model.token_vectors(settings.text)), 1), model.info.chunk_tokens)
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def train_each(objective: Objective, space: VectorSpace, starts: Mapping[int, Vectors], job: Job) -> Training:
    """Trains each number of vectors from its start; returns the training of the fewest that are enough.

    A number starts from the vectors of the one before it, filled up with its own, where that is better. After a stop
    the choice is among what there is, and likewise where a number has no memory to be trained in.
    """
    trained: dict[int, Training] = {}
    short: list[str] = []
    for tokens, own in starts.items():
        before = [_continued(trained[fewer].best, own) for fewer in list(trained)[-1:]]
        try:
            start = min([*before, dict(own)], key=objective.held_out)
            one = starting_from(objective, start)
            training = Training(start, one.held_out_start)
            if one.held_out_start <= NOTHING * one.held_out_empty:
                training.stopped, training.notes = "exact", [*one.notes, exact_note(tokens, tokens)]
                trained[tokens] = training
                break
            train(training, one, space, _counted_on(job, len(trained), len(starts)))
        except (RuntimeError, MemoryError) as error:
            if not trained or not ran_out(error):
                raise
            short.append(f"out of memory with N = {tokens}: it was chosen among fewer")
            break
        trained[tokens] = training
        if training.stopped == "interrupted" or training.best_error <= TOLERANCE * objective.held_out_empty:
            break  # no number can be better by more than the tolerance
    explained = {tokens: 1 - training.best_error / objective.held_out_empty for tokens, training in trained.items()}
    enough = fewest(explained)
    each = ", ".join(f"N = {tokens} explains {value:.3f}" for tokens, value in explained.items())
    chosen, last = trained[enough], list(trained.values())[-1]
    chosen.notes += [f"{each}, on held-out states: {enough} {'is' if enough == 1 else 'are'} enough", *short]
    chosen.seconds = sum(training.seconds for training in trained.values())
    if last.stopped == "interrupted":
        chosen.stopped = last.stopped
    return chosen


def fewest(explained: Mapping[int, float]) -> int:
    """The smallest number of vectors within `TOLERANCE` of the best."""
    best = max(explained.values())
    return min(tokens for tokens, value in explained.items() if value >= best - TOLERANCE)


def _continued(vectors: Vectors, own: Vectors) -> dict[str, torch.Tensor]:
    """(n, width) and then the rest of (N, width)."""
    return {key: torch.cat([value, own[key][len(value) :]]) for key, value in vectors.items()}


def _counted_on(job: Job, before: int, number: int) -> Job:
    """Steps for who listens: counted over `number` trainings, `before` of which are over."""
    steps = job.settings.learning_steps

    def on_progress(progress: Progress) -> None:
        job.on_progress(replace(progress, done=before * steps + progress.done, total=number * steps))

    def on_snapshot(embedding: Embedding, step: int) -> None:
        job.on_snapshot(embedding, before * steps + step)

    def on_preview(teacher: Teacher, vectors: Vectors, step: int) -> None:
        job.on_preview(teacher, vectors, before * steps + step)

    return replace(job, on_progress=on_progress, on_snapshot=on_snapshot, on_preview=on_preview)
