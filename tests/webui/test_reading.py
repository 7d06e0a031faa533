"""Prompts that the WebUI's own parser fails at, against the stand-in."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the stand-in's model needs the package's 'app' extra")

from hosts.contract import encode
from jobs.test_jobs import ended

from embedding_estimate.errors import PromptError
from embedding_estimate.hosts.webui.host import WebuiHost
from embedding_estimate.hosts.webui.reading import readable
from embedding_estimate.settings import Settings

LINE = "the WebUI cannot read '{}', because no alternative may be empty in it: write words on both sides of each |"


@pytest.mark.parametrize("text", ["[|]", "[()|]", "[a cat|]"])
def test_the_job_ends_with_one_plain_line(loaded: Any, failing_parser: None, text: str) -> None:
    from embedding_estimate.hosts.webui import extension

    job = extension.place().jobs.start(Settings(text=text, name="zebra-two", measure="Nothing"))
    ended(job)
    assert (job.state, job.problems) == ("failed", [LINE.format(text)])


def test_negative_prompts_too(loaded: Any, failing_parser: None) -> None:
    with WebuiHost().borrow() as model, pytest.raises(PromptError, match="no alternative may be empty"):
        encode(model, "[a cat|]", negative=True)


def test_what_else_fails_there_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), readable("a cat"):
        raise RuntimeError("out of memory")
