"""The code of `docs/python.md` runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from embedding_estimate import load, optimizers
from embedding_estimate.demo import demo_model_path
from embedding_estimate.fidelity import protocol
from embedding_estimate.hosts.standalone import model_config, pipeline
from embedding_estimate.model.contexts import Contexts

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of diffusers and its schedulers
def test_the_code_runs(
    brief: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(protocol, "IMAGE_SEEDS", protocol.IMAGE_SEEDS[:1])
    monkeypatch.setattr(optimizers, "FEW_STEPS", 2)
    few = {
        side: Contexts(known.train[:2], known.select[:1], known.report[:2])
        for side, known in model_config.contexts(demo_model_path()).items()
    }
    monkeypatch.setattr(pipeline, "contexts", lambda folder: few)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/python.md", "exec"), names)
    result, image = names["result"], names["image"]
    assert result.figures.explained > 0
    assert torch.equal(load("embeddings/red-disc.safetensors").vectors["emb_params"], result.vectors["clip_l"])
    assert image.size == (128, 128)
    assert (tmp_path / "red-disc-report.png").stat().st_size > 1000
    out = capsys.readouterr().out
    assert f"\n{result.figures.explained}\n" in out
    assert f"red-disc {result.embedding.tokens} (red:1.5) circle\n" in out
    assert re.search(r"^train 1 \d+ [\d.]+$", out, re.MULTILINE)


def test_the_page_keeps_to_the_width() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > 120 and not line.startswith("|")] == []
