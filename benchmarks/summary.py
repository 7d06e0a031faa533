"""From rows to the figures that are reported, and what they have to reach."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REFERENCE, CEILING = "reference", "ceiling"
RIVALS = (REFERENCE, "unet")  # whose best the others race to
TOO_POOR = 0.2  # emphasis_explained of a rival; below it, the time to reach it means nothing


@dataclass(frozen=True)
class Row:
    """One method on one prompt."""

    prompt: str
    negative: bool
    tokens: int
    method: str
    typed_weight: float  # that the vectors are measured with
    explained: float
    emphasis_explained: float | None  # None where the prompt's weights do nothing
    explained_in_context: float
    emphasis_in_context: float | None
    seconds: float
    seconds_to_reference_best: float | None
    seconds_to_unet_best: float | None
    unet_forwards: int | None  # samples; None where they were not counted
    unet_backwards: int | None
    error: float  # err(embedding), err(empty prompt), err(prompt with every weight 1), for ratios of sums
    error_empty: float
    error_without_weights: float
    error_in_context: float  # err(T[embedding]), err(T[nothing]), err(T[bare words]): sums over the contexts
    error_in_context_empty: float
    error_in_context_without_weights: float

    @property
    def place(self) -> tuple[str, bool]:
        """The prompt, and on which side it stands."""
        return self.prompt, self.negative


@dataclass(frozen=True)
class Gate:
    """What a method's figure has to reach."""

    method: str
    figure: str
    statistic: str
    at_least: float = -math.inf
    at_most: float = math.inf

    def judge(self, value: float | None) -> dict[str, Any]:
        """`value` None: never reached."""
        return {
            "method": self.method,
            "figure": f"{self.figure}, {self.statistic}",
            "value": value,
            "to_reach": f">= {self.at_least:g}" if math.isfinite(self.at_least) else f"<= {self.at_most:g}",
            "reached": value is not None and self.at_least <= value <= self.at_most,
        }


GATES: dict[float, tuple[Gate, ...]] = {
    0.5: (Gate("attention", "emphasis_explained", "ratio_of_sums", at_least=0.35),),
    1.0: (
        Gate("unet", "explained", "ratio_of_sums", at_least=0.93),
        Gate("unet", "emphasis_explained", "ratio_of_sums", at_least=0.45),
        Gate("unet", "seconds", "worst", at_most=60),
        Gate("unet", "time_of_reference", "worst", at_most=0.25),
        Gate("attention", "explained", "ratio_of_sums", at_least=0.95),
        Gate("attention", "emphasis_explained", "ratio_of_sums", at_least=0.65),
        Gate("attention", "explained_in_context", "ratio_of_sums", at_least=0.88),
        Gate("attention", "emphasis_in_context", "ratio_of_sums", at_least=0.55),
        Gate("attention", "emphasis_in_context", "worst", at_least=0),
        Gate("attention", "seconds", "worst", at_most=10),
        Gate("attention", "time_of_reference", "worst", at_most=1 / 20),
        Gate("attention", "time_of_unet", "worst", at_most=1 / 5),
        Gate("attention-typed", "emphasis_explained", "ratio_of_sums", at_least=0.92),
    ),
    2.0: (
        Gate("attention", "explained_in_context", "ratio_of_sums", at_least=0.9),
        Gate("attention", "emphasis_in_context", "ratio_of_sums", at_least=0.6),
        Gate("attention", "emphasis_in_context", "worst", at_least=0),
        Gate("attention", "emphasis_explained", "ratio_of_sums", at_least=0.75),
    ),
}
"""By vectors per token of the prompt."""


def summarise(rows: Sequence[Row], tokens_factor: float = 1.0) -> dict[str, Any]:
    """Each method's figures over the prompts, and whether the judged ones reach what they have to."""
    methods = {name: _figures(name, rows) for name in dict.fromkeys(row.method for row in rows)}
    gates = [
        gate.judge(values[gate.statistic])
        for gate in GATES.get(tokens_factor, ())
        if gate.method in methods and (values := methods[gate.method][gate.figure]) is not None
    ]
    return {"methods": methods, "gates": gates}


def _figures(method: str, rows: Sequence[Row]) -> dict[str, Any]:
    """None for a figure that nothing defines."""
    mine = [row for row in rows if row.method == method]
    in_context = _emphasis(mine, "emphasis_in_context", "error_in_context")
    return {
        "prompts": len(mine),
        "explained": {
            "ratio_of_sums": 1 - sum(row.error for row in mine) / sum(row.error_empty for row in mine),
            **_spread([row.explained for row in mine]),
        },
        "emphasis_explained": _emphasis(mine, "emphasis_explained", "error"),
        "explained_in_context": {
            "ratio_of_sums": 1
            - sum(row.error_in_context for row in mine) / sum(row.error_in_context_empty for row in mine),
            **_spread([row.explained_in_context for row in mine]),
        },
        "emphasis_in_context": in_context,
        "seconds": {"median": statistics.median(r.seconds for r in mine), "worst": max(r.seconds for r in mine)},
        **{f"time_of_{rival}": _time_of(rival, mine, rows) for rival in RIVALS},
        "of_ceiling": _of_ceiling(in_context, mine, rows),
    }


def _emphasis(rows: Sequence[Row], figure: str, error: str) -> dict[str, float] | None:
    """Of the rows that have the figure; its ratio is of the error named so and that without weights."""
    emphasised = [row for row in rows if getattr(row, figure) is not None]
    if not emphasised:
        return None
    mine, unweighted = (sum(getattr(row, name) for row in emphasised) for name in (error, f"{error}_without_weights"))
    return {"ratio_of_sums": 1 - mine / unweighted, **_spread([getattr(row, figure) for row in emphasised])}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "worst": min(values)}


def _time_of(rival: str, mine: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any] | None:
    """Seconds to the rival's best over its own; a prompt where that was never reached counts as infinity."""
    theirs = {row.place: row for row in rows if row.method == rival}
    ratios = []
    for row in mine:
        best = theirs.get(row.place)
        if best is None or best is row or (best.emphasis_explained or 0) < TOO_POOR:
            continue
        reached, needed = (getattr(each, f"seconds_to_{rival}_best") for each in (row, best))
        ratios.append(math.inf if reached is None or needed is None else reached / needed)
    if not ratios:
        return None
    return {
        "prompts": len(ratios),
        "never_reached": sum(map(math.isinf, ratios)),
        "median": _finite(statistics.median(ratios)),
        "worst": _finite(max(ratios)),
    }


def _of_ceiling(emphasis: dict[str, float] | None, mine: Sequence[Row], rows: Sequence[Row]) -> dict[str, float] | None:
    """emphasis_in_context over that of vectors which learned in the very contexts."""
    places = {row.place for row in mine}
    theirs = [row for row in rows if row.method == CEILING and row.place in places]
    ceiling = _emphasis(theirs, "emphasis_in_context", "error_in_context")
    if emphasis is None or ceiling is None:
        return None
    return {"ratio_of_sums": emphasis["ratio_of_sums"] / ceiling["ratio_of_sums"]}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
