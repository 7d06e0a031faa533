from collections.abc import Callable
from typing import Any

registered: dict[str, Callable[..., Any]] = {}


def on_ui_tabs(callback: Callable[..., Any]) -> None:
    registered["tabs"] = callback


def on_ui_settings(callback: Callable[..., Any]) -> None:
    registered["settings"] = callback


def on_after_component(callback: Callable[..., Any]) -> None:
    registered["component"] = callback


def on_app_started(callback: Callable[..., Any]) -> None:
    registered["app"] = callback
