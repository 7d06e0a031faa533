"""A Forge at hand, as far as the stand-in of its modules is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedding_estimate.model.host import Family


@pytest.fixture
def webui_kind(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "Forge"))


@pytest.fixture
def put(shared: Any, webui_kind: str, models: dict[Family, Any], tmp_path: Path) -> Callable[[Family], Any]:
    """(family) -> the description of its checkpoint, which is chosen on the page and not loaded."""
    from backend.text_processing.classic_engine import ClassicTextProcessingEngine, ClipEngine
    from forge_model import choose, put_on_disk

    from embedding_estimate.hosts.webui import extension

    shared.cmd_opts.embeddings_dir = str(tmp_path / "embeddings")
    extension.place.cache_clear()

    def put(family: Family) -> Any:
        engine_class = ClipEngine if webui_kind == "Neo" else ClassicTextProcessingEngine
        described = put_on_disk(models[family], tmp_path, engine_class)
        choose(described)
        return described

    return put


@pytest.fixture
def chosen(put: Callable[[Family], Any], shared: Any) -> Any:
    """`modules.shared` where SD1 is chosen on the page, and nothing is loaded."""
    put("sd1")
    return shared


@pytest.fixture
def loaded(chosen: Any) -> Any:
    """The same once an image was made."""
    from modules import sd_models

    sd_models.forge_model_reload()
    return chosen
