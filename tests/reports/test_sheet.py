"""What a report says: which figure stands on which card, and which numbers the lines are drawn through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from figures import FIGURES
from spying import spy

from embedding_estimate.reports.drawing import Canvas, Chart
from embedding_estimate.reports.report import Report, draw


def test_each_card_has_its_own_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = replace(
        FIGURES,
        explained=0.91,
        explained_without_weights=0.72,
        emphasis_explained=0.63,
        emphasis_in_context=-0.45,
        image_distance=0.16,
    )
    texts = spy(monkeypatch, Canvas, "text")
    draw(Report("name", "a prompt", [], figures))
    written = [call[3] for call in texts]
    assert written[written.index("0.91") :] == [
        *("0.91", "explained", "without weights 0.72"),
        *("0.63", "emphasis explained", "without weights 0"),
        *("-0.45", "emphasis in context", "without weights 0"),
        *("0.16", "image distance", "0 = same images, 1 = as far as empty"),
    ]


def test_figures_that_are_not_defined_have_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = replace(FIGURES, emphasis_explained=None, emphasis_in_context=None, image_distance=None)
    texts = spy(monkeypatch, Canvas, "text")
    draw(Report("name", "a prompt", [], figures))
    written = [call[3] for call in texts]
    assert [written[written.index(label) - 1] for label in ("emphasis explained", "emphasis in context")] == ["-", "-"]
    assert "image distance" not in written


def test_one_chart_has_the_losses_and_the_other_what_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    charts: dict[str, Chart] = {}

    def noted(chart: Chart, canvas: Canvas, *place: Any) -> None:
        charts[chart.title.partition(" ")[0].rstrip(",")] = chart

    monkeypatch.setattr(Chart, "draw", noted)
    figures = replace(FIGURES, explained_in_context_without_weights=0.55)
    draw(Report("name", "a prompt", [], figures, losses=[1.0, 0.5, 0.25], checks=[(1, 0.1), (3, 0.7)]))
    each, mean = charts["loss"].series
    assert list(each.points) == list(mean.points) == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert [list(line.points) for line in charts["explained"].series] == [[(1, 0.1), (3, 0.7)]]
    assert list(charts["explained"].levels) == [("without weights", 0.55)]
    assert charts["loss"].x_span == charts["explained"].x_span == (1, 3)
