"""The report's arithmetic and that it can be drawn from whatever there is."""

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from figures import FIGURES
from PIL import Image, ImageFont
from suites import quick_first
from toy import ToyModel

from embedding_estimate.errors import EstimateError
from embedding_estimate.estimation.curve import Point
from embedding_estimate.estimation.trainer import Estimate
from embedding_estimate.fidelity.protocol import Fidelity, Images
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.model.meter import StagePasses
from embedding_estimate.reports import drawing
from embedding_estimate.reports.drawing import Canvas, Chart, Series, divided, shortened, smoothed, text_width, ticks
from embedding_estimate.reports.image_grid import COLUMNS, THERE, blocks, in_context
from embedding_estimate.reports.report import GAP, Report, _running_means, draw, draw_curve, of_estimate, pictures, save
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.teacher import Task

NOTHING = replace(
    FIGURES, explained=-math.inf, emphasis_explained=None, explained_in_context=math.nan, emphasis_in_context=None,
    image_distance=None, image_distance_without_weights=None,
)  # fmt: skip
ROWS = [*COLUMNS, *map(in_context, THERE)]
ONE = {row: [Image.new("RGB", (16, 12), "red")] for row in COLUMNS}
IMAGES = {row: [Image.new("RGB", (16, 12), "red")] * 4 for row in COLUMNS}
BOTH = {**IMAGES, **{in_context(row): [Image.new("RGB", (16, 12), "red")] * 2 for row in THERE}}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 1.0000002, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.79, 1, [0.75, 0.8, 0.85, 0.9, 0.95, 1.0]),
        (1, 150, [0, 50, 100, 150]),
        (-0.3, 1.2, [-0.5, 0, 0.5, 1.0, 1.5]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_ticks_of_steps_are_whole_and_of_a_point_are_two() -> None:
    assert ticks(1, 3, whole=True) == [1, 2, 3]
    assert len(ticks(1, 1)) >= 2


def test_the_running_mean_takes_what_there_is() -> None:
    assert smoothed([1, 2, 3, 6], 2) == [1, 1.5, 2.5, 4.5]
    assert smoothed([], 3) == []


def test_a_chart_places_its_ends_on_its_axes() -> None:
    canvas = Canvas(400, 300)
    Chart("t", "x", [Series([(1, 0.0), (11, 1.0)], "#ff0000", dots=True)]).draw(canvas, 0, 0, 400, 300)
    picture = canvas.finished()
    assert picture.size == (400, 300)
    assert picture.getpixel((62, 246))[0] > 200 > 100 > picture.getpixel((62, 246))[1]  # left, bottom
    assert picture.getpixel((376, 58))[0] > 200 > 100 > picture.getpixel((376, 58))[1]  # right, top


def reds(picture: Image.Image, columns: range) -> int:
    """How many of these columns hold a red pixel, between the axes' labels."""
    pixels = [picture.getpixel((x, y)) for x in columns for y in range(70, 240)]
    red = [r > 150 and g < 150 and b < 150 for r, g, b in pixels]
    return sum(any(red[start : start + 170]) for start in range(0, len(red), 170))


def test_no_line_joins_two_stretches() -> None:
    points = [(1, 0.0), (20, 0.9), (60, 0.1), (100, 0.8)]  # the plot is 62 to 376 wide
    for stretches, joined in (((), True), (((0, "Sketch"), (20, "Attention")), False)):
        canvas = Canvas(400, 300)
        Chart("t", "x", [Series(points, "#ff0000")], stretches=stretches).draw(canvas, 0, 0, 400, 300)
        picture = canvas.finished()
        between, within = range(130, 240), range(260, 370)
        assert reds(picture, between) == (len(between) if joined else 0)
        assert reds(picture, within) == len(within)


def test_points_are_divided_behind_the_steps_that_come_before_a_stretch() -> None:
    points = [(1, 0.1), (20, 0.2), (21, 0.3), (90, 0.4)]
    assert divided(points, []) == [points]
    assert divided(points, [(0, "Sketch"), (20, "Attention"), (90, "U-Net")]) == [points[:2], points[2:], []]


def test_the_mean_of_a_stretch_knows_nothing_of_the_one_before() -> None:
    losses = [(step, 0.0) for step in range(1, 31)] + [(step, 3.0) for step in range(31, 61)]
    means = dict(_running_means(losses, [(0, "Sketch"), (30, "Attention")]))
    assert (means[30], means[31]) == (0.0, 3.0)
    assert 0 < dict(_running_means(losses, []))[31] < 3.0


@pytest.mark.parametrize("losses", quick_first(2, [[], [math.nan, 1.0, 0.5, math.inf], [1.0], [0.0] * 200]))
@pytest.mark.parametrize("figures", quick_first(2, [None, FIGURES, NOTHING]))
@pytest.mark.parametrize("images", quick_first(2, [{}, BOTH, ONE, IMAGES]))
def test_a_report_is_drawn_from_whatever_is_known(losses: list[float], figures: Fidelity, images: dict) -> None:
    checks = [(step, 0.5) for step in range(10, len(losses), 10)]
    sheet = draw(Report("name", "a prompt", ["U-Net part"], figures, losses, checks, images))
    assert sheet.mode == "RGB" and sheet.width >= 600


@pytest.mark.parametrize("text", ["漢字 (赤い:1.4)", "مرحبا", "🎨", "a\n\tb\x00", "\udc80", "", "x" * 100_000])
def test_text_in_any_script_is_drawn(text: str) -> None:
    draw(Report(text, text, [text]))


def test_a_pillow_without_freetype_still_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object) -> None:
        raise ImportError("The _imagingft C module is not installed")

    real = getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)  # the only one before Pillow 10.1
    monkeypatch.setattr(ImageFont, "load_default", real)
    monkeypatch.setattr(ImageFont, "truetype", missing)
    assert not isinstance(drawing._font(20), ImageFont.FreeTypeFont)
    draw(Report("漢字", "a prompt", ["été"], FIGURES, [1.0, 0.5], [(1, 0.5)], IMAGES))


def test_long_lines_are_cut() -> None:
    assert shortened("short", 18, 400) == "short"
    cut = shortened("many words " * 1000, 18, 400)
    assert cut.endswith(" ...") and 300 < text_width(cut, 18) <= 400


def test_the_curve_is_drawn_without_emphasis_too() -> None:
    points = [Point(n, FIGURES if n > 1 else NOTHING, 1.0) for n in (1, 2, 4)]
    assert draw_curve("name", "prompt", ["facts"], points).width > 600
    draw_curve("name", "prompt", [], points[:1])


def test_a_curve_has_a_line_among_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Chart] = []
    monkeypatch.setattr(Chart, "draw", lambda chart, *place: drawn.append(chart))
    figures = [replace(FIGURES, emphasis_in_context=value) for value in (None, -0.5, 0.25)]
    draw_curve("name", "prompt", [], [Point(n, each, 1.0) for n, each in zip((1, 2, 4), figures, strict=True)])
    lines = {line.label: line.points for line in drawn[0].series}
    assert lines["emphasis in context"] == [(2, -0.5), (4, 0.25)]
    assert lines["explained"] == [(1, 0.9), (2, 0.9), (4, 0.9)]


def test_pictures_are_the_same_seeds_of_every_column(toy: ToyModel) -> None:
    latents = {row: torch.full((16, 4, 4, 4), float(index)) for index, row in enumerate([*COLUMNS, "truncated"])}
    there = {row: torch.full((2, 4, 4, 4), -1.0) for row in THERE}
    made = pictures(toy, Images(latents, there))
    assert list(made) == ROWS and [len(row) for row in made.values()] == [4, 4, 4, 4, 2, 2, 2]

    def grey(latent: float) -> tuple[int, ...]:
        return (round((1 + math.sin(latent)) / 2 * 255),) * 3

    assert made["embedding"][0].getpixel((0, 0)) == grey(1.0)
    assert made[in_context("embedding")][0].getpixel((0, 0)) == grey(-1.0)


def test_images_in_a_context_say_which_and_how_much_they_explain() -> None:
    rows = [
        {"context": "a {}", "embedding": 1.0, "without weights": 1.0, "nothing": 2.0},
        {"context": "{} b", "embedding": 1.0, "without weights": 3.0, "nothing": 4.0},
    ]
    figures = replace(FIGURES, contexts=rows, pictured_context="{} b")
    alone, there = blocks(BOTH, figures, "{} b")
    assert alone.heading == "" and there.heading == "among other words: {} b"
    assert [column.explained for column in alone.columns] == [1, 0.9, 0.8, 0]
    assert [(column.label, column.explained) for column in there.columns] == [
        ("prompt", 1),
        ("embedding", 0.75),
        ("without weights", 0.25),
    ]
    assert blocks(BOTH, figures, "")[1].heading == "among other words"
    assert [column.explained for column in blocks(BOTH, None, "")[1].columns] == [None] * 3
    grown = draw(Report("n", "p", [], figures, pictures=BOTH)).height - draw(Report("n", "p", [], figures)).height
    assert grown == alone.height + GAP + there.height


def test_the_report_of_a_private_job_tells_no_context_of_the_users() -> None:
    for own, private, told in ((True, True, ""), (True, False, "{} b"), (False, True, "{} b")):
        figures = replace(FIGURES, own_contexts=own, pictured_context="{} b")
        result = estimated(figures)
        assert of_estimate(Settings(text="a", name="n", private=private), result, {}).context == told


def estimated(figures: Fidelity) -> Estimate:
    embedding = Embedding("n", {"clip_l": torch.ones(1, 6)}, {"model": {"name": "m"}})
    return Estimate(
        embedding, Task("a", False, ("",), 32, 32), figures, 1, "done", [], [], [], 1.0, 1.0, 1.0, StagePasses()
    )


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.new("RGB", (4, 4))
    save(picture, tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as read:
        assert read.size == (4, 4)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EstimateError, match="No space left on device"):
        save(picture, tmp_path / "r.png")
    assert [path.name for path in tmp_path.iterdir()] == ["r.png"]
