"""Names of phases and figures on the command line and in the tab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedding_estimate.fidelity.protocol import Fidelity

UNSURE = "no figure: quick figures are not sure of it; measure fully"
PHASES = {
    "effort": "finding out how long it takes",
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
    baseline: bool = False  # a figure to compare the figure above with
    share: bool = True  # a share of 1; otherwise a distance
    error: float | None = None  # its standard error, where that is known

    @property
    def number(self) -> str:
        return number(self.value) + ("" if self.error is None or self.value is None else f" ± {number(self.error)}")


def number(value: float | None) -> str:
    """A figure with three decimals. A zero has no sign."""
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"


def typed_as(name: str, phrase: str) -> str:
    """How an embedding is typed in prompts, in words."""
    return f"typed as the word {name}" if phrase == name else f"typed as {phrase}"


def rows(figures: Fidelity, tokens: int) -> list[Row]:
    """The figures with their baselines and their meaning. `tokens` is the number of vectors of the embedding."""
    weights = "no figure: the prompt's weights have almost no effect"
    if figures.emphasis_explained is None and figures.standard_errors["emphasis_explained"] is not None:
        weights = UNSURE
    if figures.emphasis_explained is not None:
        weights = "share of the effect of the weights; 0 = words without weights"
    inside = (
        "share of the prompt's effect in your own contexts"
        if figures.own_contexts
        else "share of the prompt's effect among other words"
    )
    cut = f"the prompt's first {tokens} token vectors, untrained"

    def bare(value: float | None) -> list[Row]:
        """The baseline of the name without its typed weight; none if there is no such weight."""
        return [] if figures.typed_weight == 1 else [Row("bare name", value, "typed without its weight", baseline=True)]

    def shown(label: str, meaning: str) -> Row:
        """A figure by its label, with its standard error."""
        name = label.replace(" ", "_")
        return Row(label, getattr(figures, name), meaning, error=figures.standard_errors[name])

    table = [
        shown("explained", "share of the prompt's effect; 1 = the prompt itself"),
        *bare(figures.explained_bare),
        *(
            Row(f"in mode {mode}", value, "typed in that emphasis mode", baseline=True)
            for mode, value in figures.explained_in_modes.items()
        ),
        Row("without weights", figures.explained_without_weights, "the same prompt with every weight 1", baseline=True),
        *([] if figures.explained_truncated is None else [Row("cut to fit", figures.explained_truncated, cut, True)]),
        shown("emphasis explained", weights),
        *bare(figures.emphasis_explained_bare),
        shown("explained in context", inside),
        *bare(figures.explained_in_context_bare),
        Row(
            "without weights",
            figures.explained_in_context_without_weights,
            "the words with every weight 1, among other words",
            baseline=True,
        ),
        shown("emphasis in context", _among_words(figures)),
        *bare(figures.emphasis_in_context_bare),
    ]
    if figures.image_distance is not None:
        distance = "same-seed images: 0 = the prompt's, 1 = as far as the empty prompt's"
        table.append(Row("image distance", figures.image_distance, distance, share=False))
    return table


def _among_words(figures: Fidelity) -> str:
    """What the emphasis among other words means."""
    if figures.emphasis_in_context is None and figures.standard_errors["emphasis_in_context"] is not None:
        return UNSURE
    if figures.emphasis_in_context is None:
        return "no figure: the prompt's weights have almost no effect among other words"
    return "0 = words without weights, below 0 = worse than them"
