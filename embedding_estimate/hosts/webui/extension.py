"""What the WebUI calls: the tab, its settings, the API, and where results go."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from embedding_estimate.errors import SettingsError, quoted
from embedding_estimate.files import names
from embedding_estimate.hosts.webui import comments, networks, options, own_prompts, styles, txt2img
from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.hosts.webui.kind import kind
from embedding_estimate.hosts.webui.options import ELEMENT, TITLE
from embedding_estimate.hosts.webui.publishing import publish
from embedding_estimate.hosts.webui.sampling import sampler_names, schedule_names
from embedding_estimate.jobs.job import Job
from embedding_estimate.jobs.jobs import Jobs
from embedding_estimate.settings import Settings
from embedding_estimate.storage import saving


class WebuiPlace:
    """`ui.place.Place` in the WebUI."""

    in_webui = True

    def __init__(self) -> None:
        self.jobs = Jobs(_host, _embeddings, _reports, tree=_tree, read=_read, on_saved=self._publish)
        self.page = txt2img.Txt2img()
        self.app: Any = None  # the WebUI's, once it has started

    def _publish(self, job: Job) -> None:
        publish(job, self.app)

    def folder(self) -> str:
        return str(_embeddings())

    def choices(self, parameter: str) -> Sequence[str]:
        return {"sampler": sampler_names, "schedule": schedule_names}.get(parameter, lambda: ())()

    def defaults(self) -> Mapping[str, Any]:
        return options.defaults()

    def token_count(self, text: str) -> int:
        return kind().token_count(networks.stripped(comments.left_out(text)))

    def name_warnings(self, name: str) -> Sequence[str]:
        webui = kind()
        model = webui.at_hand()
        engine = webui.engines(model, nullcontext)[0]
        return names.warnings(name, engine.token_ids, list(webui.embeddings(model).word_embeddings))

    def txt2img(self) -> Mapping[str, Any]:
        return self.page.components

    def as_infotext(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.page.as_infotext(values)

    def own_contexts(self, negative: bool) -> Sequence[str]:
        return own_prompts.contexts(negative)

    def style_lists(self) -> Sequence[Any]:
        return list(self.page.style_lists.values())

    def save_style(self, name: str, phrase: str, negative: bool) -> tuple[str, Sequence[str]]:
        return styles.save(name, phrase, negative), styles.names()

    def infotext(self, text: str) -> Mapping[str, Any]:
        return txt2img.parsed(text)


@functools.cache
def place() -> WebuiPlace:
    """One for the life of the process, so that Reload UI forgets no job."""
    return WebuiPlace()


def _host(settings: Settings) -> WebuiHost:
    return WebuiHost([settings.text, *settings.other_prompts, settings.initial_prompt, *settings.template_list])


def _read(settings: Settings) -> Settings:
    """As the WebUI reads prompts. Raises `SettingsError` for a folder of the WebUI's settings that cannot be used."""
    if not _is_below(folder := _chosen_folder(), tree := _tree()):
        raise SettingsError(
            [f"{quoted(options.folder())} as {options.SUB_FOLDER!r} in Settings is {folder}: choose one in {tree}"]
        )
    return comments.left_out_of(settings)


def _tree() -> Path:
    from modules import shared

    return Path(shared.cmd_opts.embeddings_dir).resolve()


def _embeddings() -> Path:
    """The WebUI's own folder or, by a setting, one below it."""
    folder, tree = _chosen_folder(), _tree()
    return folder if _is_below(folder, tree) else tree


def _chosen_folder() -> Path:
    return (_tree() / options.folder()).resolve()


def _is_below(folder: Path, tree: Path) -> bool:
    return tree in (folder, *folder.parents)


def _reports() -> Path:
    """Beside the embeddings: the WebUI takes every picture among them for one."""
    return saving.beside(_tree(), "reports")


def notice(component: Any, **arguments: Any) -> None:
    """For `on_after_component`."""
    place().page.notice(component, **arguments)


def tabs() -> list[tuple[Any, str, str]]:
    """For `on_ui_tabs`."""
    import gradio as gr

    from embedding_estimate.ui import tab

    with gr.Blocks(analytics_enabled=False) as blocks:
        tab.build(place())
    return [(blocks, TITLE, ELEMENT)]


def routes(_blocks: Any, app: Any) -> None:
    """For `on_app_started`: the API, where the WebUI has its own. With --nowebui it has nothing else."""
    from modules import shared

    place().app = app
    if shared.cmd_opts.api or shared.cmd_opts.nowebui:
        from embedding_estimate.api import basic, router

        authorised = basic(_credentials(shared.cmd_opts))
        app.include_router(router(place().jobs, _tree, authorised, options.defaults()))


def _credentials(arguments: Any) -> list[tuple[str, str]]:
    """Who may use the API: those of --api-auth or, without it, whom the page lets in."""
    lines = [arguments.api_auth or ""]
    if not arguments.api_auth:
        lines = [arguments.gradio_auth or ""]
        if arguments.gradio_auth_path:
            lines += Path(arguments.gradio_auth_path).read_text("utf-8").splitlines()
    pairs = [entry.strip().partition(":") for line in lines for entry in line.split(",") if entry.strip()]
    return [(user, password) for user, _, password in pairs]
