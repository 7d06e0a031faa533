"""What phases and figures are called, on the command line and in the tab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedding_estimate.fidelity.protocol import Fidelity

PHASES = {
    "prepare": "running the prompt",
    "weigh": "trying weights",
    "words": "trying numbers of words",
    "train": "training",
    "measure": "measuring",
}


@dataclass(frozen=True)
class Row:
    """One figure in words."""

    label: str
    value: float | None  # None: there is no such figure
    meaning: str
    baseline: bool = False  # to hold the figure above it against
    share: bool = True  # 1 is all there is to reach; otherwise a distance

    @property
    def number(self) -> str:
        return number(self.value)


def number(value: float | None) -> str:
    """A figure; one too small to show has no sign."""
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"


def typed_as(name: str, phrase: str) -> str:
    """How an embedding is called in prompts."""
    return f"typed as the word {name}" if phrase == name else f"typed as {phrase}"


def rows(figures: Fidelity, tokens: int) -> list[Row]:
    """The figures with their baselines and what they mean. `tokens` is how many vectors the embedding has."""
    weights = "the prompt's weights do next to nothing, so there is no figure"
    if figures.emphasis_explained is not None:
        weights = "of what the weights add to the bare words"
    inside = "explained, in contexts of your own" if figures.own_contexts else "explained, among other words"
    cut = f"the first {tokens} of its own token vectors, untrained"

    def bare(value: float | None) -> list[Row]:
        """To hold a typed weight against."""
        return [] if figures.typed_weight == 1 else [Row("bare name", value, "typed without its weight", baseline=True)]

    found = [
        Row("explained", figures.explained, "of what the prompt does to the model; 1 is the prompt itself"),
        *bare(figures.explained_bare),
        *(
            Row(f"in mode {mode}", value, "typed under that setting for emphasis", baseline=True)
            for mode, value in figures.explained_in_modes.items()
        ),
        Row("bare words", figures.explained_without_weights, "the same prompt, every weight 1", baseline=True),
        Row("cut to fit", figures.explained_truncated, cut, baseline=True),
        Row("emphasis explained", figures.emphasis_explained, weights),
        *bare(figures.emphasis_explained_bare),
        Row("explained in context", figures.explained_in_context, inside),
        *bare(figures.explained_in_context_bare),
        Row("bare words", figures.explained_in_context_without_weights, "every weight 1, typed there", baseline=True),
        Row("emphasis in context", figures.emphasis_in_context, _among_words(figures)),
        *bare(figures.emphasis_in_context_bare),
    ]
    if figures.image_distance is not None:
        distance = "same-seed images: 0 the prompt's, 1 as far as empty"
        found.append(Row("image distance", figures.image_distance, distance, share=False))
    return found


def _among_words(figures: Fidelity) -> str:
    """What emphasis among other words means, with how sure the figure is."""
    if figures.emphasis_in_context is None:
        return "the prompt's weights do next to nothing there"
    error = figures.standard_errors["emphasis_in_context"]
    if error is None:
        return "0: as good as the bare words there, below is worse"
    return f"0: as good as the bare words there, below is worse; give or take {number(error)}"
