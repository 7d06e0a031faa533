"""How many vectors are enough, found out where the settings leave it open.

1, 2, 4 and so on are trained in turn, up to as many as the text has tokens, on one preparation. The fewest are taken
that explain nearly what the best of them do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from embedding_estimate import failures
from embedding_estimate.failures import FAILED
from embedding_estimate.host import BorrowedModel, Vectors
from embedding_estimate.initial import exact_note
from embedding_estimate.objectives import Objective, starting_from
from embedding_estimate.progress import Stopped
from embedding_estimate.settings import Settings
from embedding_estimate.training import Job, Training, train
from embedding_estimate.vectors import VectorSpace, count

logger = logging.getLogger(__name__)

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


def train_each(
    objective: Objective, space: VectorSpace, starts: Mapping[int, Vectors], job: Job, solved: Training | None = None
) -> Training:
    """Trains each number of vectors from its start; returns the training of the fewest that are enough.

    A number starts from the vectors of the next fewer, filled up with its own, where that is better; one that is
    `solved` already is not trained again. After a stop the choice is among what there is, and likewise where a number
    cannot be trained, for want of memory or by an error.
    """
    trained = {count(solved.best): solved} if solved else {}
    steps = job.settings.learning_steps
    total = job.learning_steps + (len(starts) - 1) * steps
    short: list[str] = []
    for tokens, own in starts.items():
        if tokens not in trained:
            fewer = max((number for number in trained if number < tokens), default=None)
            before = [_continued(trained[fewer].best, own)] if fewer else []
            try:
                counted = replace(job.counted_on(len(trained) * steps, total), stretch=f"N = {tokens}")
                one = _trained(objective, space, [*before, own], counted)
            except Stopped:
                raise
            except Exception as error:
                if not trained:
                    raise
                reason = failures.logged(error, logger, f"the training of N = {tokens}")
                short.append(f"{reason} with N = {tokens}: it was chosen among the others")
                break
            trained[tokens] = one
        nearly_all = trained[tokens].best_error <= TOLERANCE * objective.held_out_empty
        if nearly_all or trained[tokens].stopped in ("interrupted", "exact", FAILED):
            break  # no number can be better by more than the tolerance, or none may be tried
    explained = {
        tokens: 1 - training.best_error / objective.held_out_empty for tokens, training in sorted(trained.items())
    }
    enough = fewest(explained)
    each = ", ".join(f"N = {tokens}: {value:.3f}" for tokens, value in explained.items())
    found = f"explained, on held-out states: {each}; {enough} {'is' if enough == 1 else 'are'} enough"
    chosen = trained[enough]
    chosen.notes = list(dict.fromkeys([*(solved.notes if solved else []), *chosen.notes, found, *short]))
    chosen.seconds = sum(training.seconds for training in trained.values())
    for reason in ("interrupted", FAILED):  # which say more of the job than of the number chosen
        ended = [training for training in trained.values() if training.stopped == reason]
        if ended:
            chosen.stopped = reason
            chosen.notes = list(dict.fromkeys([*chosen.notes, *ended[0].notes]))
    return chosen


def counted_after(job: Job, numbers: int, step: int) -> Job:
    """The job of the part that follows upon so many numbers: its steps, which the training counts on from `step`, come
    after all of theirs."""
    before = numbers * (job.learning_steps - job.settings.learning_steps)
    return job.counted_on(before - step, before + job.settings.learning_steps)


def _trained(objective: Objective, space: VectorSpace, starts: Sequence[Vectors], job: Job) -> Training:
    """From the best of the starts."""
    start = min(starts, key=objective.held_out)
    one = starting_from(objective, start)
    training = Training(dict(start), one.held_out_start)
    if one.held_out_start <= NOTHING * one.held_out_empty:
        training.stopped, training.notes = "exact", [*one.notes, exact_note(count(start), count(start))]
    else:
        train(training, one, space, job)
    return training


def fewest(explained: Mapping[int, float]) -> int:
    """The smallest number of vectors within `TOLERANCE` of the best."""
    best = max(explained.values())
    return min(tokens for tokens, value in explained.items() if value >= best - TOLERANCE)


def _continued(vectors: Vectors, own: Vectors) -> dict[str, torch.Tensor]:
    """(n, width) and then the rest of (N, width)."""
    return {key: torch.cat([value, own[key][len(value) :]]) for key, value in vectors.items()}
