"""The tab. It holds no state: what it shows comes from the jobs, so a reload or a second browser shows the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from embedding_estimate.errors import EstimateError, SettingsError
from embedding_estimate.jobs import Job
from embedding_estimate.settings import PROMPT, Settings
from embedding_estimate.ui import PREFIX, filling, status, word
from embedding_estimate.ui.compat import LATEST, QUIET
from embedding_estimate.ui.form import Form
from embedding_estimate.ui.place import Place


def build(place: Place) -> None:
    """Fills the blocks it is called within. On the page it needs style.css and the javascript, which keeps it live."""
    neighbours = place.txt2img()
    with gr.Row(elem_id=f"{PREFIX}tab"):
        with gr.Column(scale=3, min_width=320):
            with gr.Row(elem_id=f"{PREFIX}sources"):
                taken = gr.Button("From txt2img", size="sm", elem_id=f"{PREFIX}take", visible=bool(neighbours))
                infotext = gr.Button("Read infotext", size="sm", elem_id=f"{PREFIX}read")
            form = Form(place.choices, place.defaults())
        with gr.Column(scale=2, min_width=320, elem_id=f"{PREFIX}side"):
            estimate = gr.Button("Estimate!", variant="primary", elem_id=f"{PREFIX}estimate")
            explore = gr.Button("How many tokens?", size="sm", elem_id=f"{PREFIX}explore")
            with gr.Row(elem_classes=[f"{PREFIX}interrupts"]):
                save = gr.Button("Interrupt (save)", interactive=False, elem_id=f"{PREFIX}interrupt_save")
                drop = gr.Button("Interrupt (not save)", interactive=False, elem_id=f"{PREFIX}interrupt_drop")
            problems = gr.HTML(elem_id=f"{PREFIX}problems")
            state = gr.HTML(elem_id=f"{PREFIX}state")
    poll = gr.Button("State", elem_id=f"{PREFIX}poll", elem_classes=[f"{PREFIX}hidden"])
    count = gr.Button("Count", elem_id=f"{PREFIX}count", elem_classes=[f"{PREFIX}hidden"])

    def now() -> tuple[Any, ...]:
        job = place.jobs.latest
        running = gr.update(interactive=job is not None and job.state == "running")
        return status.render(job, place.folder(), place.in_webui), running, running

    def start(*values: Any) -> tuple[Any, ...]:
        return status.problems(refused(place.jobs.start, form, values)), *now()

    def try_numbers(*values: Any) -> tuple[Any, ...]:
        return status.problems(refused(place.jobs.explore, form, values)), *now()

    def stop(save: bool) -> tuple[Any, ...]:
        if job := place.jobs.latest:
            job.stop.stop(save=save)
        return now()

    shown = [state, save, drop]
    estimate.click(start, list(form.components.values()), [problems, *shown], **QUIET)
    explore.click(try_numbers, list(form.components.values()), [problems, *shown], **QUIET)
    save.click(lambda: stop(save=True), None, shown, **QUIET)
    drop.click(lambda: stop(save=False), None, shown, **QUIET)
    poll.click(now, None, shown, **QUIET)
    counted = [form.components[name] for name in form.counts]
    counting = (lambda *texts: counts(place, texts)), counted, list(form.counts.values())
    count.click(*counting, **LATEST)

    def take(prompt_type: str, *values: Any) -> list[Any]:
        return filled(place, prompt_type, place.told(dict(zip(neighbours, values, strict=True))))

    def read(prompt_type: str, text: str) -> list[Any]:
        if too_long := PROMPT.excess(text):
            return filled(place, prompt_type, {}, else_say=too_long)
        return filled(place, prompt_type, place.infotext(filling.bare(text)), else_say=filling.NO_INFOTEXT)

    written = [problems, *(form.components[name] for name in filling.FILLED)]
    prompt_type = form.components["prompt_type"]
    taken.click(take, [prompt_type, *neighbours.values()], written, **QUIET).then(*counting, **QUIET)
    infotext.click(read, [prompt_type, form.components["text"]], written, **QUIET).then(*counting, **QUIET)


def refused(start: Callable[[Settings], Job], form: Form, values: tuple[Any, ...]) -> list[str]:
    """Starts a job; the lines that say why it may not start, or none."""
    try:
        start(form.settings(values))
    except SettingsError as error:
        return error.problems
    except EstimateError as error:
        return [str(error)]
    return []


def filled(place: Place, prompt_type: str, told: Mapping[str, Any], else_say: str = "") -> list[Any]:
    """What is wrong, and the new values of `filling.FILLED`; where nothing is told `else_say` and none."""
    values, refused = filling.read(told, prompt_type == "Negative Prompt", place.choices)
    if else_say and not filling.tells(told):
        values, refused = {}, [else_say]
    kept = (gr.update(value=values[name]) if name in values else gr.update() for name in filling.FILLED)
    return [status.problems(refused), *kept]


def counts(place: Place, texts: tuple[str, ...]) -> Any:
    """The token count of each text, as HTML."""
    found = []
    for text in texts:
        try:
            tokens = None if PROMPT.excess(text) else place.token_count(text)
            found.append(f"{'?' if tokens is None else tokens} {word('token' if tokens == 1 else 'tokens')}")
        except EstimateError:  # what is wrong is said when the job starts
            found.append(f"? {word('tokens')}")
    return found
