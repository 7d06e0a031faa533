"""Registers the extension; the WebUI runs every file in this folder."""

from typing import Any

from modules import script_callbacks, scripts

from embedding_estimate.hosts.webui import extension, options, use_warnings

script_callbacks.on_after_component(extension.notice)
script_callbacks.on_ui_tabs(extension.tabs)
script_callbacks.on_ui_settings(options.add)
script_callbacks.on_app_started(extension.routes)


class Comments(scripts.Script):
    """Says beside an image where an embedding in its prompt was made for other settings."""

    def title(self) -> str:
        return options.TITLE

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def process_batch(self, p: Any, *args: Any, **batch: Any) -> None:
        if batch.get("batch_number", 0) == 0:
            use_warnings.comment(p)
