"""What the WebUI does to every prompt is done to ours."""

import os
from pathlib import Path
from typing import Any

import pytest

from embedding_estimate.hosts.webui.comments import left_out


def test_comments_are_left_out_as_the_webui_does_it(webui: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a circle # red\n# blue\nsquare"
    if not (Path(os.environ["WEBUI_DIR"]) / "modules" / "processing_scripts" / "comments.py").exists():
        assert left_out(text) == text
        return
    assert left_out(text).split() == ["a", "circle", "square"]
    if "enable_prompt_comments" in webui.opts.data_labels:
        monkeypatch.setitem(webui.opts.data, "enable_prompt_comments", False)
        assert left_out(text) == text
