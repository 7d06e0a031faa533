"""What the tab shows of a job, on the toy host."""

import base64
import io
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from figures import FIGURES
from jobs.test_jobs import Place
from PIL import Image
from toy import ToyHost

from embedding_estimate.checks import advice
from embedding_estimate.estimation.curve import Point
from embedding_estimate.estimation.trainer import Estimate
from embedding_estimate.fidelity.protocol import Fidelity
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.jobs.job import Curve, Job, Measuring, Saved
from embedding_estimate.jobs.readings import MOST, Reading, Readings
from embedding_estimate.model.meter import StagePasses
from embedding_estimate.progress import Progress, StopReason
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.teacher import Task
from embedding_estimate.ui import chart, markup, result, status

NASTY = '<img src=x onerror="alert(1)"> & (b:1.2)'


@pytest.fixture
def place(toy_host: ToyHost, tmp_path: Path) -> Place:
    return Place(toy_host, tmp_path)


def job(**settings: Any) -> Job:
    return Job("1", Settings(**{"text": "(red:1.5) circle", "name": "it"} | settings))


def unmeasured(name: str, folder: Path) -> Saved:
    embedding = Embedding(name, {"clip_l": torch.ones(1, 6)})
    made = Estimate(
        embedding,
        Task("(red:1.5) circle", False, ("",), 32, 32),
        None,
        7,
        StopReason.INTERRUPTED,
        [],
        [],
        [],
        1.0,
        1.0,
        1.0,
        StagePasses(),
    )
    return Saved(made, [folder / "it.safetensors"], {}, None, 2.0)


def test_before_the_first_job_it_says_what_to_do() -> None:
    html = status.render(None, "the <folder>", in_webui=False)
    assert 'data-state="idle"' in html and "the &lt;folder&gt;" in html
    assert re.findall("<li>(.*?)</li>", html) == list(status.HELLO) and len(status.HELLO) == 3
    assert f'data-embedding-estimate="example">{status.EXAMPLE}</button>' in html


def test_a_job_that_runs() -> None:
    running = job()
    assert "waiting for the model" in status.render(running, "", in_webui=False)
    running.follow(Progress("train", 1, 150, loss=1.0, explained=0.0))
    running.phase_began -= 90
    running.follow(Progress("train", 75, 150, loss=0.5, explained=0.25))
    html = status.render(running, "", in_webui=False)
    assert 'data-state="running"' in html and 'aria-valuenow="50"' in html
    assert "<span>training</span>, 75/150" in html
    assert re.search("1:3[01] left", html)
    assert "loss</span> 0.500" in html and "explained</span> 0.250" in html


@pytest.mark.parametrize(("save", "said"), [(True, "the best so far will be saved"), (False, "nothing will be saved")])
def test_a_job_that_is_stopping(save: bool, said: str) -> None:
    stopping = job()
    stopping.stop.stop(save=save)
    assert said in status.render(stopping, "", in_webui=False)


def finished(place: Place, **settings: Any) -> Job:
    done = place.jobs.start(Settings(text="(red:1.5) circle", name="it", tokens=2, learning_steps=3, **settings))
    while done.state == "running":
        time.sleep(0.01)
    return done


@pytest.mark.usefixtures("brief")
def test_a_job_that_is_done(place: Place) -> None:
    done = finished(place, measure="Full with images")
    html = status.render(done, "", in_webui=True)
    assert 'data-state="done"' in html and "<code>it</code>" in html and str(done.saved.path) in html
    for label in (
        "explained",
        "emphasis explained",
        "without weights",
        "cut to fit",
        "explained in context",
        "image distance",
    ):
        assert f"<dt>{label}</dt>" in html
    assert "data:image/png;base64," in html
    assert html.index("txt2img_prompt") < html.index("txt2img_neg_prompt")
    assert result.CARD in html
    assert "txt2img" not in (alone := status.render(done, "", in_webui=False)) and result.CARD not in alone

    done.saved.report.unlink()
    assert "data:image/png" not in status.render(done, "", in_webui=True)


@pytest.mark.usefixtures("brief")
def test_a_typed_weight_is_told_and_typed(place: Place) -> None:
    html = status.render(finished(place, measure="Full", typed_weight=1.2), "", in_webui=True)
    assert "Type this in your prompt:</span> <code>(it:1.2)</code>" in html and html.count('data-typed="(it:1.2)"') == 3
    assert "<dt>bare name</dt>" in html
    html = status.render(finished(place, measure="Nothing", overwrite=True), "", in_webui=True)
    assert "Type this in your prompt:</span> <code>it</code>" in html and html.count('data-typed="it"') == 3


def test_figures_without_images(place: Place) -> None:
    html = status.render(finished(place, measure="Full"), "", in_webui=True)
    assert "<dt>explained</dt>" in html and "image distance" not in html and "data:image/png;base64," in html


@pytest.mark.usefixtures("brief")
def test_the_latest_preview_is_shown_while_nothing_better_is_there(place: Place) -> None:
    done = finished(place, measure="Nothing", preview_every=2)
    assert done.preview is not None and done.preview.step == 2
    html = status.render(done, "", in_webui=False)
    assert html.count("data:image/jpeg;base64,") == 3 and "The same seed at step</span> 2<" in html
    better = finished(place, preview_every=2, overwrite=True)
    html = status.render(better, "", in_webui=False)
    assert re.findall('<img alt="" src="data:image/jpeg[^>]+><small>(.*?)</small>', html) == list(result.PICTURED)
    assert "The same seed</span>: <code>blue it</code>" in html and "at step" not in html
    better.state = "running"
    assert "The same seed at step</span> 2<" in status.render(better, "", in_webui=False)


def test_a_preview_is_made_small() -> None:
    large = Image.new("RGB", (2048, 1024))
    shown = markup.thumbnail(large)
    with Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))) as small:
        assert small.size == (256, 128)
    assert large.size == (2048, 1024)


def test_a_negative_embedding_goes_to_the_negative_prompt_first(tmp_path: Path) -> None:
    done = job(prompt_type="Negative Prompt")
    done.state, done.saved = "done", unmeasured("it", tmp_path)
    html = status.render(done, "", in_webui=True)
    assert "Type this in your negative prompt:" in html
    assert html.index("txt2img_neg_prompt") < html.index('"txt2img_prompt"')


def test_a_job_that_was_interrupted_has_no_figures(tmp_path: Path) -> None:
    done = job()
    done.state, done.saved = "done", unmeasured("it", tmp_path)
    html = status.render(done, "", in_webui=False)
    assert result.UNMEASURED in html and "<dl" not in html and "verdict" not in html
    assert "<p>The training was interrupted after 7 steps. The best vectors so far are saved.</p>" in html


def point(tokens: int, explained: float, emphasis: float | None) -> Point:
    return Point(tokens, replace(FIGURES, explained=explained, emphasis_explained=emphasis), 1.5)


def test_a_curve_that_runs_shows_where_it_is_and_what_it_has() -> None:
    running = Curve("1", Settings(text="red circle"), numbers=[1, 2, 4])
    assert "waiting for the model" in status.render(running, "", in_webui=False)
    running.points.append(point(1, 0.5, None))
    running.follow(Progress("train", 20, 150, loss=0.5, explained=0.25))
    html = status.render(running, "", in_webui=False)
    assert "N = 2, <span>training</span>, 20/150" in html and 'data-tokens="1"' in html
    assert html.count('embedding_estimate_number"') == 3  # the axis is there from the start
    running.stop.stop(save=True)
    assert "the rows so far will stay" in status.render(running, "", in_webui=False)


def test_a_curve_that_is_done_is_a_chart_and_rows_to_choose_from() -> None:
    done = Curve("1", Settings(text="red circle"), numbers=[1, 2, 4])
    done.points += [point(1, 0.5, -3.0), point(2, 0.75, 0.25), point(4, float("nan"), None)]
    done.state = "done"
    html = status.render(done, "", in_webui=False)
    assert 'data-state="done"' in html
    assert re.findall(r'data-embedding-estimate="tokens" data-tokens="(\d)"', html) == ["1", "2", "4"]
    assert "<td>0.750</td><td>0.250</td>" in html
    lines = re.findall(r'<polyline class="embedding_estimate_(\w+)" points="([^"]+)"', html)
    assert [name for name, _ in lines] == ["explained", "emphasis"]
    below = [float(place.split(",")[1]) for place in lines[1][1].split()]
    assert max(below) <= chart.HEIGHT and "nan" not in lines[0][1]


def measured(folder: Path) -> Job:
    """One whose embedding is there already."""
    running = job()
    running.follow(Progress("measure", 1, 1600))
    running.typed, running.trained = "(it:1.2)", [folder / "it.safetensors"]
    return running


def test_a_job_that_is_measured_can_be_used_already(tmp_path: Path) -> None:
    running = measured(tmp_path)
    html = status.render(running, "", in_webui=True)
    assert f"{tmp_path / 'it.safetensors'}</p>" in html and result.MEASURED_NEXT in html
    assert "<code>(it:1.2)</code>" in html and html.count('data-typed="(it:1.2)"') == 3
    running.stop.stop(save=True)
    assert "stopping; without figures" in status.render(running, "", in_webui=True)
    running.stop.stop(save=False)
    assert "stopping; the embedding will be removed" in status.render(running, "", in_webui=True)


def test_a_full_measurement_that_is_stopping_says_that_the_figures_stay(tmp_path: Path) -> None:
    measuring = Measuring("id", job().settings, trained=[tmp_path / "it.safetensors"], typed="it")
    measuring.stop.stop(save=False)
    html = status.render(measuring, "", in_webui=False)
    assert "stopping; the figures from before will stay" in html and "removed" not in html


def test_a_full_measurement_that_failed_shows_why_and_what_was_known(place: Place) -> None:
    done = finished(place)
    failed = Measuring("id", done.settings, trained=done.trained, typed=done.typed, saved=done.saved)
    failed.state, failed.problems = "failed", ["choose the model again"]
    html = status.render(failed, "", in_webui=False)
    assert "could not be measured" in html and "choose the model again" in html
    assert result.done(failed, done.saved, False) in html


def headlines(html: str) -> list[tuple[str, str, str]]:
    """Title, value and meaning of the figures above the fold."""
    return re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>.*?<dd>(.*?)</dd></div>", html.partition("<details")[0])


def verdicts(html: str) -> list[tuple[str, str]]:
    """Kind and sentence, the first one large."""
    lines = re.search('<p class="embedding_estimate_verdict">(.*?)</p>', html)
    return re.findall(r'<span class="embedding_estimate_(\w+)">(.*?)</span>', lines[1]) if lines else []


def test_figures_fill_in_as_they_are_measured(tmp_path: Path) -> None:
    running = measured(tmp_path)
    waits = ("-", "being measured")
    html = status.render(running, "", in_webui=False)
    assert headlines(html) == [("Among other words", *waits), ("Typed alone", *waits)] and verdicts(html) == []

    running.figures.update(explained=0.97, emphasis_explained=0.93)
    html = status.render(running, "", in_webui=False)
    alone = ("Typed alone", "0.930", result.MEANINGS["emphasis_explained"])
    assert headlines(html) == [("Among other words", *waits), alone]
    assert verdicts(html) == [("very_close", "Very close to the prompt, typed alone.")]

    running.figures.update(explained_in_context=0.8, emphasis_in_context=None)
    html = status.render(running, "", in_webui=False)
    assert headlines(html) == [("Among other words", "0.800", result.MEANINGS["explained_in_context"]), alone]
    assert verdicts(html)[0] == ("differs", "Differs from the prompt, among other words.")


def with_figures(folder: Path, figures: Fidelity, **settings: Any) -> Job:
    """A job that is over and has these."""
    done, saved = job(**settings), unmeasured("it", folder)
    done.state = "done"
    done.saved = replace(saved, estimate=replace(saved.estimate, fidelity=figures, stopped=StopReason.DONE))
    return done


def test_a_result_says_what_to_type_then_how_close_it_is_then_what_to_try_then_the_figures(tmp_path: Path) -> None:
    poor = replace(FIGURES, emphasis_in_context=-0.2)
    done = with_figures(tmp_path, poor)
    done.notes = ["something to know", *advice.of_figures(poor)]
    html = status.render(done, "", in_webui=False)
    order = ["<code>it</code>", "Worse than typing the words", result.CLOSER, "<dl", "something to know", "<details"]
    places = [html.index(piece) for piece in order]
    assert places == sorted(places)
    assert verdicts(html) == [
        ("worse", "Worse than typing the words, among other words."),
        ("close", "Close to the prompt, typed alone."),
    ]
    assert "Type the prompt itself" in html and "the prompt without weights works better" not in html  # said once

    above, below = html.split("<details")
    assert len(headlines(html)) == 2 and ">cut to fit<" not in above and ">cut to fit<" in below
    assert "<p>The embedding has 1 vector.</p>" in below and "<p>The training took 7 steps.</p>" in below


def test_what_it_is_made_for_comes_first(tmp_path: Path) -> None:
    html = status.render(with_figures(tmp_path, FIGURES, use="Alone"), "", in_webui=False)
    assert [title for title, *_ in headlines(html)] == ["Typed alone", "Among other words"]
    assert [kind for kind, _ in verdicts(html)] == ["close", "differs"]
    assert result.CLOSER not in html


def test_vectors_that_need_no_training_are_very_close(tmp_path: Path) -> None:
    done, saved = job(measure="Nothing"), unmeasured("it", tmp_path)
    done.state = "done"
    done.saved = replace(saved, estimate=replace(saved.estimate, stopped=StopReason.EXACT))
    html = status.render(done, "", in_webui=False)
    assert verdicts(html) == [("very_close", "Very close to the prompt.")] and "<p>No training was needed.</p>" in html


@pytest.mark.parametrize("stopped", sorted(set(StopReason) - {StopReason.STUCK, StopReason.SNAPSHOT}))
def test_every_end_of_a_training_has_a_sentence(tmp_path: Path, stopped: StopReason) -> None:
    done, saved = job(), unmeasured("it", tmp_path)
    done.state, done.saved = "done", replace(saved, estimate=replace(saved.estimate, stopped=stopped))
    sentence = result.ENDS.get(stopped, result.UNTRAINED).format(7)
    assert f"<p>{sentence}</p>" in status.render(done, "", in_webui=False) and sentence.endswith(".")


@pytest.mark.parametrize("state", ["failed", "dropped"])
def test_a_job_that_left_nothing_says_why(state: Any) -> None:
    ended = job()
    ended.state, ended.problems = state, ["a < b", "out of memory"]
    html = status.render(ended, "", in_webui=False)
    assert f'data-state="{state}"' in html and "a &lt; b" in html and "out of memory" in html


def test_a_folder_whose_name_is_no_text_can_be_shown() -> None:
    shown = status.render(None, os.fsdecode(b"/home/caf\xe9/\x1b"), in_webui=False)
    assert r"/home/caf\udce9/\x1b" in shown
    shown.encode()


def test_what_was_typed_is_escaped(tmp_path: Path) -> None:
    for state in ("running", "done", "failed", "dropped"):
        shown = job(text=NASTY, name=NASTY)
        shown.state, shown.problems, shown.notes = state, [NASTY], [NASTY]
        shown.saved = unmeasured(NASTY, tmp_path / NASTY)
        html = status.render(shown, NASTY, in_webui=True)
        assert "<img" not in html and '"alert(' not in html and "&lt;img src=x" in html
    assert "<img" not in status.problems([NASTY]) and "<img" not in status.render(None, NASTY, in_webui=True)


def curve(stretches: dict[str, dict[int, float]]) -> Readings:
    """With these losses by step, and explained as much as is left."""
    readings = Readings()
    for name, losses in stretches.items():
        for step, loss in losses.items():
            readings.add(name, Reading(step, loss, 1 - loss))
    return readings


def lines(html: str) -> list[tuple[str, bool, list[float]]]:
    """Name, whether it is dim, and the places along the steps, of each line."""
    pattern = r'<polyline class="embedding_estimate_(\w+)( embedding_estimate_earlier)?" points="([^"]+)"'
    found = re.findall(pattern, html)
    return [(name, bool(dim), [float(at.split(",")[0]) for at in points.split()]) for name, dim, points in found]


def test_a_long_curve_is_a_small_drawing() -> None:
    html = chart.svg(curve({"U-Net": {step: float("nan") if step == 3 else 0.5 for step in range(1, 10_001)}}), 10_000)
    assert html.count(",") < 2 * (MOST + 2) and "nan" not in html
    assert [(name, places[-1]) for name, _, places in lines(html)] == [("loss", 480), ("explained", 480)]
    assert chart.svg(Readings(), 10) == ""


def test_no_line_joins_the_sketch_and_what_follows() -> None:
    drawn = curve({"Sketch": {10: 0.4, 20: 0.07}, "Attention": {21: 3.2, 120: 0.45}})
    html = chart.svg(drawn, 120)
    assert lines(html) == [  # a line's last place stands there twice
        ("loss", True, [0, 40, 80, 80]),  # 1 at the start
        ("explained", True, [40, 80, 80]),
        ("loss", False, [84, 480, 480]),
        ("explained", False, [84, 480, 480]),
    ]
    assert "loss</span> 0.450" in html and "explained</span> 0.550" in html
    assert "<span>pale:</span> <span>Sketch</span>; <span>each part is measured anew</span>" in html


def test_a_curve_of_one_measure_has_no_names() -> None:
    html = chart.svg(curve({"U-Net": {10: 0.4, 20: 0.07}}), 120)
    assert "pale" not in html and "anew" not in html and not any(dim for _, dim, _ in lines(html))


def test_parts_without_a_finite_reading_are_not_drawn() -> None:
    html = chart.svg(curve({"Sketch": {10: float("nan")}, "Attention": {21: 0.5}}), 120)
    assert [(name, dim) for name, dim, _ in lines(html)] == [("loss", False), ("explained", False)]


@pytest.mark.usefixtures("brief")
def test_several_words_are_shown_as_what_to_type(place: Place) -> None:
    done = finished(place, words="One per weight", measure="Nothing")
    html = status.render(done, "", in_webui=True)
    assert "<code>(it-a:1.5) it-b</code>" in html
    assert html.count('data-typed="(it-a:1.5) it-b"') == 4
    assert html.count('data-embedding-estimate="style"') == 1 and ">Save as style</button>" in html
    assert "Save as style" not in status.render(done, "", in_webui=False)
    one = finished(place, overwrite=True, measure="Nothing")
    assert "Save as style" not in status.render(one, "", in_webui=True)
    assert ", ".join(map(str, done.saved.paths)) in html and len(done.saved.paths) == 2
