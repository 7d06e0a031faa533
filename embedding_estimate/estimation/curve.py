"""Fidelity over N: how many vectors a prompt needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from embedding_estimate.checks import advice
from embedding_estimate.checks.model_checks import check_against, check_contexts
from embedding_estimate.errors import Interrupted, ModelError, SettingsError, quoted
from embedding_estimate.estimation import trainer
from embedding_estimate.estimation.dry_run import within_seconds
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.fidelity.protocol import Fidelity
from embedding_estimate.model.host import Host
from embedding_estimate.progress import OnProgress, StopToken
from embedding_estimate.settings import PARAMETERS, QUICK, Settings
from embedding_estimate.teaching.recall import Recall
from embedding_estimate.teaching.teacher import Task, Teacher
from embedding_estimate.teaching.words import plans
from embedding_estimate.training.start import number_of_vectors


@dataclass(frozen=True)
class Point:
    """What so many vectors reach."""

    tokens: int
    fidelity: Fidelity
    seconds: float  # of the estimate, without the measuring


def curve(
    settings: Settings,
    host: Host,
    counts: Sequence[int],
    *,
    contexts: Sequence[str] = (),
    on_notes: Callable[[Sequence[str]], None] = lambda notes: None,
    on_progress: Callable[[int], OnProgress] = lambda tokens: lambda progress: None,
    stop: StopToken,
    recall: Recall | None = None,
) -> Iterator[Point]:
    """Estimates the prompt with each number of vectors and yields the figures, without images, as they come.

    `contexts` are the user's own to measure in. `on_notes` gets what the user should know before the work begins.
    `on_progress` gives the listener for each N. `recall` is that of `trainer.estimate`: the prompt is run
    for the first N only. A stop that saves ends the curve with the points that are whole.
    Raises what `estimate` raises; settings are checked for every N before the first is estimated. Raises `ModelError`
    where one could not be measured, and where the host has loaded another model in between.
    """
    settings = within_seconds(settings, host, Listener(on_notes=on_notes), contexts=contexts, stop=stop)
    tried = variants(settings, counts)
    with trainer.interruptible(stop), host.borrow(stop.check) as model:
        check_against(tried[max(tried)], model)
        check_contexts(contexts, settings.negative, model)
        plans(tried[min(tried)], model)
        teacher = Teacher(model, Task.of(settings, model))
        on_notes(advice.of_job(advised(settings), teacher) + advice.of_contexts(contexts, settings, teacher))
    first, recall = None, Recall() if recall is None else recall
    for tokens, one in tried.items():
        try:
            result = trainer.estimate(
                one, host, Listener(on_progress=on_progress(tokens)), contexts=contexts, stop=stop, recall=recall
            )
        except Interrupted:
            if stop.dropped:
                raise
            return
        if result.fidelity is None:
            if stop.stopped:
                return
            raise ModelError(f"N = {tokens}: {result.notes[-1]}")
        model = result.embedding.provenance["model"]
        first = first or model
        if model != first:
            raise ModelError(f"the model was {first['name']} and is {model['name']} now: start again with one of them")
        yield Point(tokens, result.fidelity, result.seconds_prepare + result.seconds_train)


def advised(settings: Settings) -> Settings:
    """What there may be to say of a curve's settings: it sets the number of vectors itself, and keeps none of them."""
    return replace(settings, tokens=0, save_every=0, preview_every=0)


def numbers(settings: Settings, host: Host, stop: StopToken) -> list[int]:
    """Those to try where nobody says: 1, 2, 4 and so on, as many as the text has tokens, and twice as many.

    Raises `Interrupted` for a stop while others have the model.
    """
    with trainer.interruptible(stop), host.borrow(stop.check) as model:
        unbound = replace(settings, tokens=0)
        own = number_of_vectors(unbound, model)
        least = min(map(len, plans(unbound, model)), default=0)  # a word has a vector of its own
        tried = {2**power for power in range(own.bit_length())} | {own, min(2 * own, model.info.chunk_tokens)}
        return sorted(number for number in tried if number >= least)


def variants(settings: Settings, counts: Sequence[int]) -> dict[int, Settings]:
    """The settings of each N, without images. Raises `SettingsError` with the problems of all."""
    if settings.token_source != "Number":
        raise SettingsError(
            [f"token_source={quoted(settings.token_source)}: a curve sets the number itself; leave it out"]
        )
    (number,) = (replace(parameter, name="N", minimum=1) for parameter in PARAMETERS if parameter.name == "tokens")
    problems = [problem for tokens in dict.fromkeys(counts) if (problem := number.problem(tokens))]
    problems += replace(settings, tokens=1).problems()
    if problems:
        raise SettingsError(problems)
    return {tokens: replace(settings, tokens=tokens, measure=QUICK) for tokens in counts}
