"""The tab. It holds no state: what it shows comes from the jobs, so a reload or a second browser shows the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from embedding_estimate.errors import EstimateError
from embedding_estimate.files import names
from embedding_estimate.jobs.job import Curve, Job, Plan
from embedding_estimate.jobs.jobs import EXPLORED, UNNAMED
from embedding_estimate.settings import PROMPT, Settings
from embedding_estimate.ui import PREFIX, filling, status, word
from embedding_estimate.ui.compat import LATEST, QUIET
from embedding_estimate.ui.form import Form
from embedding_estimate.ui.offer import Offer
from embedding_estimate.ui.place import Place

EXAMPLE = "(red:1.5) circle"
REFRESH = "The button beside the list of styles reads them anew."


def build(place: Place) -> None:
    """Fills the blocks it is called within. On the page it needs style.css and the javascript, which keeps it live."""
    neighbours = place.txt2img()
    form = Form(place.choices, place.defaults(), keeps_prompts=place.in_webui)
    with gr.Row(elem_id=f"{PREFIX}tab"):  # style.css puts the second beside the others where there is room
        with gr.Column(elem_id=f"{PREFIX}form"):
            with gr.Row(elem_id=f"{PREFIX}sources"):
                taken = gr.Button("From txt2img", size="sm", elem_id=f"{PREFIX}take", visible=bool(neighbours))
                infotext = gr.Button("Read infotext", size="sm", elem_id=f"{PREFIX}read")
            filled_in = gr.HTML(elem_id=f"{PREFIX}filled")
            form.first()
        with gr.Column(elem_id=f"{PREFIX}side"):
            estimate = gr.Button("Estimate!", variant="primary", elem_id=f"{PREFIX}estimate")
            with gr.Row(elem_id=f"{PREFIX}questions"):
                plan = gr.Button("How long?", size="sm", elem_id=f"{PREFIX}plan")
                explore = gr.Button("How many tokens?", size="sm", elem_id=f"{PREFIX}explore")
            with gr.Row(elem_id=f"{PREFIX}interrupts"):
                save = gr.Button("Interrupt (save)", size="sm", interactive=False, elem_id=f"{PREFIX}interrupt_save")
                drop = gr.Button(
                    "Interrupt (not save)", size="sm", interactive=False, elem_id=f"{PREFIX}interrupt_drop"
                )
            offer = Offer(place.jobs)
            problems = gr.HTML(elem_id=f"{PREFIX}problems")
            state = gr.HTML(elem_id=f"{PREFIX}state")
        with gr.Column(elem_id=f"{PREFIX}settings"):
            form.folds()
    poll, restore, clear, count, check = map(_pressed_by_the_javascript, ("poll", "restore", "clear", "count", "check"))
    example = _pressed_by_the_javascript("example")
    save_style, measure = map(_pressed_by_the_javascript, ("save_style", "measure_fully"))

    def now() -> tuple[Any, ...]:
        job = place.jobs.latest
        running = gr.update(interactive=job is not None and job.state == "running")
        return status.render(job, place.folder(), place.in_webui), running, running, *offer.now()

    def starting(start: Callable[[Settings], Job]) -> Callable[..., tuple[Any, ...]]:
        return lambda *values: (refused(start, form, values), *now())

    def stop(save: bool) -> tuple[Any, ...]:
        if job := place.jobs.latest:
            job.interrupt(save=save)
        return now()

    lists = list(place.style_lists())

    def keep_as_style() -> tuple[Any, ...]:
        wrong, said, styles = as_style(place)
        job_state, *interrupts = now()
        known = gr.update(choices=list(styles)) if styles else gr.update()
        return wrong, job_state + status.remarks(said), *interrupts, *(known for _ in lists)

    shown = [state, save, drop, *offer.shown]
    for button, begin in ((estimate, place.jobs.start), (plan, place.jobs.plan), (explore, place.jobs.explore)):
        button.click(starting(begin), list(form.components.values()), [problems, *shown], **QUIET)
    offer.connect(now, [problems, *shown])
    save.click(lambda: stop(save=True), None, shown, **QUIET)
    drop.click(lambda: stop(save=False), None, shown, **QUIET)
    measure.click(lambda: (measure_fully(place), *now()), None, [problems, *shown], **QUIET)
    save_style.click(keep_as_style, None, [problems, *shown, *lists], **QUIET)
    poll.click(now, None, shown, **QUIET)
    clear.click(lambda: ("", "", ""), None, [problems, filled_in, form.own_prompts_taken], **QUIET)
    counted = [form.components[name] for name in form.counts]
    counting = (lambda *texts: counts(place, texts)), counted, list(form.counts.values())
    count.click(*counting, **LATEST)
    named = [form.components[name] for name in ("name", "format", "overwrite")]
    checking = (lambda *values: status.remarks(remarks(place, *values))), named, form.name_remarks
    check.click(*checking, **LATEST)
    restoring = (lambda: restored(place, form)), None, list(form.components.values())
    restore.click(*restoring, **QUIET).then(*counting, **QUIET).then(*checking, **QUIET)

    of_example = [form.components[name] for name in ("text", "name", "overwrite")]
    fill_in = example.click(lambda: (EXAMPLE, place.jobs.free_name(EXAMPLE), False), None, of_example, **QUIET)
    fill_in.then(*counting, **QUIET).then(*checking, **QUIET)

    def take(prompt_type: str, *values: Any) -> list[Any]:
        return filled(place, prompt_type, place.as_infotext(dict(zip(neighbours, values, strict=True))))

    def read(prompt_type: str, text: str) -> list[Any]:
        if too_long := PROMPT.excess(text):
            return filled(place, prompt_type, {}, else_say=too_long)
        return filled(place, prompt_type, place.infotext(filling.bare(text)), else_say=filling.NO_INFOTEXT)

    written = [problems, filled_in, form.more, *(form.components[name] for name in filling.FILLED)]
    prompt_type = form.components["prompt_type"]
    taken.click(take, [prompt_type, *neighbours.values()], written, **QUIET).then(*counting, **QUIET)
    infotext.click(read, [prompt_type, form.components["text"]], written, **QUIET).then(*counting, **QUIET)

    own = [form.components["templates"], form.own_prompts_taken]
    form.own_prompts.click(lambda side: from_own_prompts(place, side), [prompt_type], own, **QUIET)


def _pressed_by_the_javascript(name: str) -> Any:
    return gr.Button(name, elem_id=f"{PREFIX}{name}", elem_classes=[f"{PREFIX}hidden"])


def refused(start: Callable[[Settings], Job], form: Form, values: tuple[Any, ...]) -> str:
    """Starts a job; why it may not start, as HTML, or nothing."""
    return status.refusal(lambda: start(form.settings(values)))


def measure_fully(place: Place) -> str:
    """Starts to measure what the latest job has saved; why that cannot be, as HTML, or nothing."""
    job = place.jobs.latest
    return status.refusal(lambda: place.jobs.measure(job.id)) if job else ""


def restored(place: Place, form: Form) -> list[Any]:
    """The new values of the form on a page that opens: those of the job that runs, if one does."""
    job = place.jobs.latest
    values = job.settings.to_dict() if job is not None and job.state == "running" else {}
    if isinstance(job, Curve):
        values = {name: value for name, value in values.items() if name not in EXPLORED}
    if isinstance(job, Plan) and values.get("name") == UNNAMED:
        del values["name"]
    updates = []
    for name in form.components:
        choices = place.choices(name)
        known = name in values and (not choices or values[name] in choices)
        updates.append(gr.update(value=values[name]) if known else gr.update())
    return updates


def remarks(place: Place, name: str, file_format: str, overwrite: bool) -> list[str]:
    """What is to be said of a name while it is typed: why it cannot be one, or what will surprise."""
    if not name.strip():
        return []  # not typed yet
    if wrong := names.problems(name) or place.jobs.name_problems(name, file_format, overwrite):
        return wrong
    try:
        return list(place.name_warnings(name))
    except EstimateError:  # there is no model yet
        return []


def filled(place: Place, prompt_type: str, infotext: Mapping[str, Any], else_say: str = "") -> list[Any]:
    """What is wrong, what was filled in, the fold, and the new values of `filling.FILLED`; where it is no infotext
    `else_say` and none."""
    values, refused = filling.read(infotext, prompt_type == "Negative Prompt", place.choices)
    if else_say and not filling.is_infotext(infotext):
        values, refused = {}, [else_say]
    kept = (gr.update(value=values[name]) if name in values else gr.update() for name in filling.FILLED)
    fold = gr.update(open=True) if values else gr.update()
    return [status.problems(refused), status.filled(values), fold, *kept]


def from_own_prompts(place: Place, prompt_type: str) -> tuple[Any, str]:
    """The new value of the contexts to train in, from the user's prompts on that side, and what is said of it. The
    bare name comes first, as it does among the model's contexts: without it little of the weights arrives alone."""
    contexts = place.own_contexts(prompt_type == "Negative Prompt")
    said = status.remarks([filling.own_prompts(len(contexts))])
    return (gr.update(value="\n".join(["{}", *contexts])) if contexts else gr.update()), said


def as_style(place: Place) -> tuple[str, list[str], Sequence[str]]:
    """Saves what is typed for the latest result as a style of the host's: what is wrong as HTML, what is to be said of
    it, and the names of all styles."""
    job = place.jobs.latest
    if job is None or job.saved is None:  # another has begun since
        return "", [], ()
    result = job.saved.estimate
    try:
        line, styles = place.save_style(result.embedding.name, result.phrase, job.settings.negative)
    except EstimateError as error:
        return status.problems([str(error)]), [], ()
    return "", [line, *([] if place.style_lists() else [REFRESH])], styles


def counts(place: Place, texts: tuple[str, ...]) -> Any:
    """The token count of each text, as HTML."""
    lines = []
    for text in texts:
        try:
            tokens = None if PROMPT.excess(text) else place.token_count(text)
            lines.append(f"{'?' if tokens is None else tokens} {word('token' if tokens == 1 else 'tokens')}")
        except EstimateError:  # what is wrong is said when the job starts
            lines.append(f"? {word('tokens')}")
    return lines
