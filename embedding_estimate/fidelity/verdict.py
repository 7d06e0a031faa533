"""How good an embedding is, in words. The thresholds stand here; docs/fidelity.md explains them.

Where the prompt's weights do something, the verdict is on how much of their effect the embedding has. Otherwise it is
on how much of the whole prompt's effect it has, which bare words share, so the thresholds are higher.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

AMONG_WORDS = (
    "emphasis_in_context",
    "explained_in_context",
)  # figures of `protocol.Fidelity`, the first if it is defined
ALONE = ("emphasis_explained", "explained")

EMPHASIS = {"very close": 0.9, "close": 0.5}  # from which figure on; 0 is as good as the words without weights
EXPLAINED = {"very close": 0.99, "close": 0.9}  # 0 is as good as no words at all


class Verdict(str, Enum):
    """The value is what users read."""

    VERY_CLOSE = "Very close to the prompt"
    CLOSE = "Close to the prompt"
    DIFFERS = "Differs from the prompt"
    WORSE = "Worse than typing the words"

    def __str__(self) -> str:
        return self.value

    @property
    def good(self) -> bool:
        return self in (Verdict.VERY_CLOSE, Verdict.CLOSE)


def verdict(figures: Mapping[str, float | None], names: tuple[str, str]) -> Verdict | None:
    """On the figures of these two names, `AMONG_WORDS` or `ALONE`. None as long as they are not measured.

    A figure that is None is undefined: the prompt's weights do next to nothing.
    """
    emphasis_name, explained_name = names
    if explained_name not in figures:
        return None
    emphasis, explained = figures[emphasis_name], figures[explained_name]
    if emphasis is not None:
        return Verdict.WORSE if emphasis < 0 else _by(EMPHASIS, emphasis)
    return None if explained is None else _by(EXPLAINED, explained)


def _by(thresholds: Mapping[str, float], figure: float) -> Verdict:
    if figure >= thresholds["very close"]:
        return Verdict.VERY_CLOSE
    return Verdict.CLOSE if figure >= thresholds["close"] else Verdict.DIFFERS
