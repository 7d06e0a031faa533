"""The tab without a browser, on the toy host."""

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jobs.test_jobs import ended
from jobs.test_resuming import cut_off
from suites import quick_first
from toy import ToyHost

from embedding_estimate.errors import EmbeddingError, ModelError
from embedding_estimate.files import names as names_of_embeddings
from embedding_estimate.jobs.job import Curve, Plan
from embedding_estimate.jobs.jobs import Jobs
from embedding_estimate.settings import PARAMETERS, Parameter, Settings
from embedding_estimate.ui import status

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")

import gradio as gr
from ui.events import clicked, events

from embedding_estimate.ui import form, tab

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # see conftest.py


def names(parameter: str) -> tuple[str, ...]:
    return {"sampler": ("Euler", "DPM++ SDE"), "schedule": ("Automatic",)}.get(parameter, ())


class Place:
    in_webui = True

    def __init__(self, host: ToyHost, folder: Path):
        self.host = host
        self.free = threading.Event()  # not set: a job waits for the model
        self.free.set()
        self.jobs = Jobs(self.lend, lambda: folder / "embeddings", lambda: folder / "reports")
        self.styles: dict[str, tuple[str, bool]] = {}
        self.lists: list[Any] = []

    def lend(self, settings: Settings) -> ToyHost:
        assert self.free.wait(60)
        return self.host

    def folder(self) -> str:
        return "the <folder>"

    def choices(self, parameter: str) -> tuple[str, ...]:
        return names(parameter)

    def defaults(self) -> dict[str, Any]:
        return {}

    def token_count(self, text: str) -> int:
        if text == "wrong":
            raise EmbeddingError("too long")
        return len(text.split())

    def name_warnings(self, name: str) -> list[str]:
        return names_of_embeddings.warnings(name, self._token_ids, ())

    def _token_ids(self, text: str) -> list[int]:
        """Two for a word that is none."""
        return [token for word in text.split() for token in range(1 if word in ("red", "circle") else 2)]

    def txt2img(self) -> dict[str, Any]:
        return {"Prompt": gr.Textbox(elem_id="embedding_estimate_test"), "Steps": gr.Slider(1, 150)}

    def as_infotext(self, values: dict[str, Any]) -> dict[str, Any]:
        return {**values, "Prompt": f"{values['Prompt']}, styled"}

    def own_contexts(self, negative: bool) -> list[str]:
        return ["{}, a negative"] if negative else []

    def style_lists(self) -> list[Any]:
        return self.lists

    def save_style(self, name: str, phrase: str, negative: bool) -> tuple[str, list[str]]:
        if name in self.styles:
            raise EmbeddingError("no room")
        self.styles[name] = (phrase, negative)
        return f"saved as the style {name}", list(self.styles)

    def infotext(self, text: str) -> dict[str, Any]:
        return {"Prompt": text, "Negative prompt": "grey", "Steps": "7"} if "Steps:" in text else {"Prompt": text}


@pytest.fixture
def place(toy_host: ToyHost, tmp_path: Path) -> Place:
    return Place(toy_host, tmp_path)


@pytest.fixture
def waiting(place: Place) -> Iterator[None]:
    """Jobs wait for the model, and are dropped in the end."""
    place.free.clear()
    yield
    drop(place)


def drop(place: Place) -> None:
    assert place.jobs.latest is not None
    place.jobs.latest.stop.stop(save=False)
    place.free.set()
    ended(place.jobs.latest)


def built_with(defaults: dict[str, Any]) -> form.Form:
    with gr.Blocks(analytics_enabled=False):
        made = form.Form(names, defaults)
        made.first()
        made.folds()
    return made


@pytest.fixture(scope="module")
def built() -> form.Form:
    return built_with({})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> gr.Blocks:
    """The tab in a WebUI, for who only looks at it."""
    with gr.Blocks(analytics_enabled=False) as blocks, gr.Tab("Embedding Estimate"):
        tab.build(Place(ToyHost(), tmp_path_factory.mktemp("page")))
    return blocks


def values(built: form.Form, **changed: Any) -> tuple[Any, ...]:
    assert changed.keys() <= built.components.keys()
    return tuple(changed.get(name, component.value) for name, component in built.components.items())


# the form


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.name)
def test_every_setting_has_a_component(built: form.Form, parameter: Parameter) -> None:
    component = built.components[parameter.name]
    assert component.label == parameter.label
    assert component.info.startswith(parameter.help)
    assert component.elem_id == f"embedding_estimate_{parameter.name}"
    for choice in parameter.choices:
        assert choice in component.choices or choice in dict(component.choices)  # gradio 3 has no names for them
    if parameter.maximum is not None:
        assert f"{parameter.maximum:,.15g}" in component.info or component.maximum == parameter.maximum


def test_labels_are_unique(built: form.Form) -> None:
    """The WebUI keeps values from one start to the next by label."""
    labels = [component.label for component in built.components.values()]
    assert len(set(labels)) == len(labels)


def fold_of(blocks: gr.Blocks, name: str) -> str:
    """The label of the accordion that a setting's component is in; empty for one that is in none."""
    block = next(each for each in blocks.blocks.values() if each.elem_id == f"embedding_estimate_{name}")
    while block is not None and not isinstance(block, gr.Accordion):
        block = block.parent
    return block.label if block else ""


def test_what_every_estimate_needs_comes_first_then_the_training_and_the_rest_is_folded(page: gr.Blocks) -> None:
    folds: dict[str, list[str]] = {}
    for parameter in PARAMETERS:
        folds.setdefault(fold_of(page, parameter.name), []).append(parameter.name)
    assert set(folds.pop("")) == {"text", "prompt_type", "name", "overwrite", "tokens"}
    mission = {"part", "steps", "learning_steps", "rate", "optimizer", "loss", "initial_prompt", "token_source"}
    assert set(folds["Training"]) == mission | {"use", "effort", "seconds"}
    opened = {each.label: each.open for each in page.blocks.values() if isinstance(each, gr.Accordion)}
    assert opened == {"Training": True, "More settings": False} and folds.keys() == opened.keys()


def test_the_buttons_stand_between_the_first_settings_and_the_folds(page: gr.Blocks) -> None:
    """A narrow page shows them in this order, so nobody scrolls past the whole form."""
    (row,) = (each for each in page.blocks.values() if each.elem_id == "embedding_estimate_tab")
    columns = [each.elem_id for each in row.children]
    assert columns == ["embedding_estimate_form", "embedding_estimate_side", "embedding_estimate_settings"]


def test_the_form_has_the_order_in_which_it_is_filled_in(built: form.Form) -> None:
    assert list(built.components)[:5] == ["text", "prompt_type", "name", "overwrite", "tokens"]


def pressed(blocks: gr.Blocks, name: str) -> Any:
    """What the handler of a button returns, and the ids of the components that get it."""
    handler = clicked(blocks, name)
    return dict(zip((each.elem_id for each in handler.outputs), handler.fn(), strict=True))


def test_the_example_has_a_text_and_a_name_that_is_free(place: Place, tmp_path: Path) -> None:
    with gr.Blocks(analytics_enabled=False) as blocks:
        tab.build(place)
    filled = {"text": "(red:1.5) circle", "name": "red-circle", "overwrite": False}
    assert pressed(blocks, "example") == {f"embedding_estimate_{name}": value for name, value in filled.items()}
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "red-circle.pt").write_bytes(b"")
    assert pressed(blocks, "example")["embedding_estimate_name"] == "2-red-circle"


def test_untouched_values_are_the_defaults(built: form.Form) -> None:
    assert built.settings(values(built)) == Settings(schedule="Automatic")  # the place has no other schedule


def test_the_form_starts_from_the_places_defaults_whatever_the_webui_remembers() -> None:
    built = built_with({"format": "pt", "preview_every": 25})
    settings = built.settings(values(built))
    assert (settings.format, settings.preview_every, settings.tokens) == ("pt", 25, 0)
    kept = [name for name, component in built.components.items() if hasattr(component, "do_not_save_to_config")]
    assert sorted(kept) == ["format", "preview_every"]


def test_values_become_settings(built: form.Form) -> None:
    changed = {"text": "a", "tokens": 4.0, "rate": 1, "guidance_scale": 7.5, "overwrite": True, "part": "Transformer"}
    settings = built.settings(values(built, **changed))
    assert (settings.tokens, settings.rate, settings.guidance_scale) == (4, 1.0, 7.5)
    assert (type(settings.tokens), type(settings.rate)) == (int, float)
    assert settings.overwrite and settings.part == "Transformer"


def test_an_emptied_or_broken_number_is_a_problem(built: form.Form) -> None:
    problems = built.settings(values(built, text="a", name="x", learning_steps=None, seed=1.5)).problems()
    assert len(problems) == 2 and "learning_steps=None" in problems[0] and "seed=1.5" in problems[1]


def test_names_of_the_place_are_choices(built: form.Form) -> None:
    assert dict(built.components["sampler"].choices).keys() == {"Euler", "DPM++ SDE"}


# the events


def test_the_tab_builds_within_other_blocks(page: gr.Blocks) -> None:
    ids = [block.elem_id for block in page.blocks.values() if block.elem_id]
    assert len(set(ids)) == len(ids) and all(name.startswith("embedding_estimate_") for name in ids)
    assert not any(event.queued for event in events(page))


def test_problems_come_back_as_lines(place: Place, built: form.Form) -> None:
    html = tab.refused(place.jobs.start, built, values(built, text="", name="a,b|c"))
    lines = re.findall("<li>(.*?)</li>", html)
    assert len(lines) == 3 and "text is empty" in lines[0]
    assert "stands for the end of a tag" in lines[1] and "stands for alternation" in lines[2]
    assert "data-until-idle" not in html
    assert place.jobs.latest is None


def test_a_job_starts_and_a_second_is_refused(place: Place, built: form.Form, waiting: None) -> None:
    good = values(built, text="red circle", name="it", schedule="Karras")
    assert tab.refused(place.jobs.start, built, good) == ""
    assert place.jobs.latest is not None and place.jobs.latest.settings.name == "it"
    html = tab.refused(place.jobs.start, built, good)
    assert "<li>it is being estimated" in html and "data-until-idle" in html  # it is wrong only as long as that runs


def test_tokens_are_counted(place: Place) -> None:
    assert tab.counts(place, ("a b", "a", "wrong")) == [
        "2 <span>tokens</span>",
        "1 <span>token</span>",
        "? <span>tokens</span>",
    ]


def test_a_text_that_is_too_long_is_neither_counted_nor_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(place, "token_count", lambda text: asked.append(text) or 1)
    counted = tab.counts(place, ("a" * 100_001, "a"))
    assert counted == ["? <span>tokens</span>", "1 <span>token</span>"] and asked == ["a"]

    monkeypatch.setattr(place, "infotext", lambda text: asked.append(text) or {})
    with gr.Blocks() as blocks:
        tab.build(place)
    read = next(event.function.fn for event in events(blocks) if event.function.name == "read")
    problems, *kept = read("Prompt", "Steps: 1\n" * 20_000)
    assert "text has 180,000 characters: 100,000 are allowed; shorten it" in problems and asked == ["a"]
    assert not any("value" in update for update in kept)


def test_the_form_is_filled(place: Place) -> None:
    told = place.as_infotext({"Prompt": "circle", "Negative prompt": "grey", "Steps": 7})
    problems, said, fold, text, other, *rest = tab.filled(place, "Prompt", told)
    assert (problems, text["value"], other["value"]) == ("", "circle, styled", "grey")
    assert [update["value"] for update in rest if "value" in update] == [7]
    assert fold["open"] is True
    assert re.sub("<[^>]+>", "", said) == "Filled in: Text circle, styled, Other prompt grey, Sampling steps 7"
    _, said, _, text, *_ = tab.filled(place, "Negative Prompt", told)
    assert text["value"] == "grey"
    assert tab.filled(place, "Prompt", {"Prompt": "a", "Steps": 7})[1].count("<span>(emptied)</span>") == 1


def test_a_text_that_is_no_infotext_changes_nothing(place: Place) -> None:
    problems, said, *rest = tab.filled(place, "Prompt", place.infotext("a circle"), else_say="paste one")
    assert "paste one" in problems and said == ""
    assert not any("value" in update or "open" in update for update in rest)


def test_what_was_filled_in_is_short_and_escaped() -> None:
    html = status.filled({"text": "<b>" + 100 * "x", "other_prompt": " ", "seed": 1_999_999_999})
    assert "&lt;b&gt;" + 37 * "x" + "…" in html and 38 * "x" not in html
    assert "<span>Seed</span> 1999999999" in html


# a name, while it is typed


@pytest.mark.parametrize(
    ("name", "overwrite", "said"),
    [
        ("", False, []),
        ("zorgle", False, []),
        ("a,b", False, ["name='a,b': ',' stands for the end of a tag; leave it out"]),
        ("taken", False, ["taken: taken.safetensors has this name already; choose another or overwrite it"]),
        ("taken", True, []),
        (
            "red circle",
            False,
            ["every prompt with these ordinary words would call it", "ComfyUI cannot call a name with a space"],
        ),
    ],
)
def test_a_name_is_looked_at(place: Place, tmp_path: Path, name: str, overwrite: bool, said: list[str]) -> None:
    assert tab.remarks(place, "taken", "safetensors", overwrite) == []  # there is no folder yet
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "taken.safetensors").write_bytes(b"")
    found = tab.remarks(place, name, "safetensors", overwrite)
    assert len(found) == len(said) and all(line in given for line, given in zip(said, found, strict=True))


def test_a_name_is_looked_at_without_a_model(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> list[str]:
        raise ModelError("no checkpoint is loaded")

    monkeypatch.setattr(place, "name_warnings", none)
    assert tab.remarks(place, "zorgle", "safetensors", False) == []
    assert len(tab.remarks(place, "a,b", "safetensors", False)) == 1


# a page that opens


def restored(place: Place, built: form.Form) -> dict[str, Any]:
    updates = dict(zip(built.components, tab.restored(place, built), strict=True))
    return {name: update["value"] for name, update in updates.items() if "value" in update}


def test_a_page_that_opens_while_a_job_runs_has_its_settings(place: Place, built: form.Form, waiting: None) -> None:
    assert restored(place, built) == {}
    asked = Settings(
        text="red (circle:1.2)", name="it", other_prompt="grey", steps=7, sampler="Euler", schedule="Karras"
    )
    place.jobs.start(asked)
    expected = asked.to_dict()
    del expected["schedule"]  # the form has no such choice
    assert restored(place, built) == expected
    drop(place)
    assert restored(place, built) == {}


def test_a_curve_leaves_the_name_and_the_number_alone(place: Place, built: form.Form, waiting: None) -> None:
    place.jobs.explore(Settings(text="red (circle:1.2)", name="mine", tokens=5))
    values = restored(place, built)
    assert values["text"] == "red (circle:1.2)" and not {"name", "tokens"} & values.keys()


def test_a_plan_leaves_a_name_that_is_not_typed_yet_alone(place: Place, built: form.Form, waiting: None) -> None:
    place.jobs.plan(Settings(text="red (circle:1.2)", tokens=3))
    values = restored(place, built)
    assert (values["text"], values["tokens"]) == ("red (circle:1.2)", 3) and "name" not in values
    place.jobs.plan(Settings(text="red", name="mine"))
    assert restored(place, built)["name"] == "mine"


def test_a_plan_is_shown_in_minutes_and_megabytes() -> None:
    plan = Plan("1", Settings(text="red", name="it"))
    assert "How long?" in status.render(plan, "", in_webui=False)
    plan.facts = {
        "passes": {"prepare": {}, "train": {}, "measure": {}},
        "seconds": {"prepare": 9.2, "train": 65.0, "measure": 0.0, "total": 74.2},
        "memory": {"total": 3 * 2**20},
    }
    plan.state = "done"
    shown = re.sub(r"<[^>]*>", "", status.render(plan, "", in_webui=False))
    first, second = shown.split(".", 1)
    assert first == "How long? About 1:15 on this machine (prepare 0:10, train 1:05, measure 0:00)"
    assert second == "Memory on top of the model: 3 MB"


def test_the_number_in_the_form_does_not_matter_to_a_curve(place: Place, built: form.Form) -> None:
    good = values(built, text="(red:1.5) circle", schedule="Karras", learning_steps=3, tokens=0)
    assert tab.refused(place.jobs.explore, built, good) == ""
    explored = place.jobs.latest
    while explored.state == "running":
        time.sleep(0.01)
    assert isinstance(explored, Curve) and [each.tokens for each in explored.points] == [1, 2, 4]
    assert 'data-tokens="4"' in status.render(explored, "", in_webui=True)


def test_contexts_are_filled_in_from_the_users_prompts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts, said = tab.from_own_prompts(place, "Negative Prompt")
    assert contexts["value"] == "{}\n{}, a negative" and "1 context from the last image" in said
    contexts, said = tab.from_own_prompts(place, "Prompt")
    assert "value" not in contexts and "there is no saved style" in said  # what is typed there stays
    monkeypatch.setattr(place, "own_contexts", lambda negative: ["a {}", "{} b"])
    contexts, said = tab.from_own_prompts(place, "Prompt")
    assert contexts["value"] == "{}\na {}\n{} b" and "2 contexts from the last image" in said


# a style


def saved_as_style(place: Place) -> tuple[Any, ...]:
    """What the button does on the page: problems, the state, the interrupts, and the lists of styles."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        place.lists = [gr.Dropdown(elem_id=name) for name in ("one", "other")]
        tab.build(place)
    handler = clicked(blocks, "save_style")
    assert [each.elem_id for each in handler.outputs][-2:] == ["one", "other"]
    return tuple(handler.fn())


@pytest.mark.parametrize("side", quick_first(1, ["Negative Prompt", "Prompt"]))
def test_several_words_are_saved_as_a_style(place: Place, side: str) -> None:
    problems, state, *_, one, other = saved_as_style(place)
    assert (problems, place.styles) == ("", {}) and "choices" not in one  # there is no result yet
    done = place.jobs.start(
        Settings(
            text="(red:1.5) circle", name="it", words="One per weight", measure="Nothing", prompt_type=side, steps=2
        )
    )
    while done.state == "running":
        time.sleep(0.01)
    problems, state, *_, one, other = saved_as_style(place)
    assert place.styles == {"it": ("(it-a:1.5) it-b", side == "Negative Prompt")}
    assert problems == "" and "saved as the style it</p>" in state and 'data-state="done"' in state
    assert one["choices"] == other["choices"] == ["it"] and tab.REFRESH not in state
    problems, state, *_, one, other = saved_as_style(place)
    assert "no room" in problems and "saved as the style" not in state and "choices" not in one


def test_where_no_list_of_styles_is_known_it_is_said_how_to_read_them_anew(place: Place) -> None:
    done = place.jobs.start(Settings(text="(red:1.5) circle", name="it", words="One per weight", measure="Nothing"))
    while done.state == "running":
        time.sleep(0.01)
    assert tab.as_style(place) == ("", ["saved as the style it", tab.REFRESH], ["it"])


def test_only_a_place_with_prompts_offers_them(page: gr.Blocks, place: Place) -> None:
    place.in_webui = False
    with gr.Blocks(analytics_enabled=False) as alone:
        tab.build(place)
    for blocks, in_webui in ((page, True), (alone, False)):
        (button,) = (each for each in blocks.blocks.values() if each.elem_id == "embedding_estimate_own_prompts")
        assert button.visible is in_webui


# an estimate that was cut off


def test_what_was_cut_off_is_offered_resumed_and_gone(place: Place, tmp_path: Path) -> None:
    with gr.Blocks(analytics_enabled=False) as blocks:
        tab.build(place)
    assert clicked(blocks, "poll").fn()[-2:] == ("", "")
    machine = cut_off(tmp_path)
    _, _, _, line, name = clicked(blocks, "poll").fn()
    assert re.fullmatch(r"<p>An estimate of it was cut off at step \d+ of 60 on \d{4}-\d\d-\d\d \d\d:\d\d.</p>", line)
    refusal, shown, _, _, line, name_now = clicked(blocks, "resume").fn(name)
    assert (refusal, line, name_now) == ("", "", "") and 'data-state="running"' in shown
    assert place.jobs.latest
    ended(place.jobs.latest)
    assert place.jobs.latest.state == "done" and list(machine.files) == ["it.safetensors"]
    assert clicked(blocks, "poll").fn()[-2:] == ("", "")


def test_what_a_page_discards_is_what_it_shows(place: Place, tmp_path: Path) -> None:
    """Another page has resumed the latest since, or discarded it."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        tab.build(place)
    cut_off(tmp_path, name="first")
    cut_off(tmp_path, name="latest")
    os.utime(tmp_path / "embeddings-steps" / "first.resume.safetensors", (0, 0))
    name = clicked(blocks, "poll").fn()[-1]
    assert clicked(blocks, "discard").fn(name)[-1] == "first"
    refusal, *_, after = clicked(blocks, "discard").fn(name)
    assert "no estimate of this name was cut off; choose from first" in refusal and after == "first"


def test_a_damaged_state_is_offered_with_its_line(place: Place, tmp_path: Path) -> None:
    with gr.Blocks(analytics_enabled=False) as blocks:
        tab.build(place)
    state = tmp_path / "embeddings-steps" / "it.resume.safetensors"
    state.parent.mkdir()
    state.write_bytes(b"no state")
    line = f"{state}: cannot be read or is damaged; discard it, and estimate again"
    assert clicked(blocks, "poll").fn()[-2:] == (f"<p>{line}</p>", "it")
    assert line in clicked(blocks, "resume").fn("it")[0]
    assert clicked(blocks, "discard").fn("it")[-2:] == ("", "")
