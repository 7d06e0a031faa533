"""Where to start: with the vectors of a prompt's tokens, which are sometimes all that is needed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from embedding_estimate.model.host import BorrowedModel, Vectors
from embedding_estimate.model.vectors import count, fit
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.sides import alike
from embedding_estimate.teaching.teacher import Teacher, Trajectory
from embedding_estimate.teaching.words import Word


def number_of_vectors(settings: Settings, model: BorrowedModel) -> int:
    """N: the settings' own or the initial prompt's; where the settings leave it open, as many as the text has tokens.

    Then the words behind an embedding stand in the places that they have behind the text. With one vector more or
    fewer they move, and what is read of them with them, which no vectors can make up for.
    """
    if settings.token_source == "Initial prompt":
        return count(model.token_vectors(settings.initial_prompt))
    if settings.tokens:
        return settings.tokens
    return min(max(count(model.token_vectors(settings.text)), 1), model.info.chunk_tokens)


def starting_vectors(settings: Settings, model: BorrowedModel, words: Sequence[Word] = ()) -> dict[str, Tensor]:
    """Vectors (N, width) of the initial prompt, cut or filled with zeros to N, or else of the text itself.

    The text's are filled with the padding that would stand there anyway, so that nothing is lost to start with. Those
    of `words` are the vectors of the tokens that they stand for.
    """
    if words:
        return vectors_of_words(settings.text, model, words)
    if not settings.initial_prompt.strip():
        return fit(model.token_vectors(settings.text), settings.tokens, model.padding_vectors())
    plain = model.token_vectors(settings.initial_prompt)
    return fit(plain, count(plain) if settings.token_source == "Initial prompt" else settings.tokens)


def vectors_of_words(text: str, model: BorrowedModel, words: Sequence[Word]) -> dict[str, Tensor]:
    """Vectors (N, width) of a text's tokens that words stand for, one word after the other."""
    places = [place for word in words for place in word.places]
    return {key: value[places] for key, value in model.token_vectors(text).items()}


def exact_vectors(
    teacher: Teacher, trajectory: Trajectory, tokens: int, words_own: Vectors | None = None
) -> dict[str, Tensor] | None:
    """The prompt's own token vectors where typing them is the same as typing the prompt; None where it is not.

    So for a prompt of at most `tokens` tokens whose weights are all 1, or of which each has a word that starts from
    `words_own`. Found by comparing the conditionings.
    """
    plain = dict(words_own or teacher.model.token_vectors(teacher.task.text))
    side = teacher.replaced(teacher.task.text, trajectory)
    if not 1 <= count(plain) <= tokens or side.composed or side.scheduled:
        return None
    with torch.no_grad():
        mine = teacher.encode_vectors(plain)
    return plain if alike(mine, side.stages[0].parts[0][0]) else None


def exact_note(tokens: int, used: int) -> str:
    """What is said where `exact_vectors` were found; `tokens` were asked for."""
    note = "the prompt's own token vectors have exactly its effect: no training is needed"
    return note if used == tokens else f"{note}, N = {used} instead of {tokens}"
