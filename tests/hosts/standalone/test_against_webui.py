"""The grammar beside the WebUI's own, on random prompts: set WEBUI_DIR to a checkout of 1.10.1."""

import importlib.util
import os
import random
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from embedding_estimate.hosts.standalone import grammar

PIECES = [
    *"[]():|\\_ab,",
    *(" ", "  ", "b ", "\n", "0.5", "3", "1.2", "-2", "1e1", "2E-1", "5 ", "é", "{}", "\\(", "\\]", "\\\\"),
    *(" AND ", "BREAK", " BREAK ", ":3]", ":.2]", " : 1.3)", ":-1)", ":0)"),
    *("[a:b:3]", "[c:.5]", "[x|y]", "(z:1.2)", "[d::0.2]", "[::4]", "(w)", "[([r:2])]"),
]
PROMPTS = 1500


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    folder = os.environ.get("WEBUI_DIR")
    if not folder:
        pytest.skip("WEBUI_DIR names no checkout of AUTOMATIC1111 1.10.1")
    pytest.importorskip("lark", minversion="1.3", reason="lark 1.1.2 reads malformed schedules at random")
    path = Path(folder) / "modules" / "prompt_parser.py"
    spec = importlib.util.spec_from_file_location("webui_prompt_parser", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():  # its docstrings hold escapes that Python no longer knows
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


def test_random_prompts(theirs: ModuleType) -> None:
    draw = random.Random(0)
    for _ in range(PROMPTS):
        prompt = "".join(draw.choices(PIECES, k=draw.randrange(1, draw.choice([5, 9, 16]))))
        evaluations = draw.choice([1, 2, 5, 10])
        [stages] = theirs.get_learned_conditioning_prompt_schedules([prompt], evaluations)
        assert [list(stage) for stage in grammar.schedule(prompt, evaluations)] == stages, prompt
        [parts], texts, _ = theirs.get_multicond_prompt_list([prompt])
        assert grammar.compose(prompt) == [(texts[index], weight) for index, weight in parts], prompt
        segments = theirs.parse_prompt_attention(prompt)
        assert [list(segment) for segment in grammar.emphasise(prompt)] == segments, prompt
