"""Registers the extension; the WebUI runs every file in this folder."""

from modules import script_callbacks

from embedding_estimate.hosts.webui import extension

script_callbacks.on_ui_tabs(extension.tabs)
script_callbacks.on_ui_settings(extension.options)
script_callbacks.on_app_started(extension.routes)
