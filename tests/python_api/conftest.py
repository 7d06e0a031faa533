from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shaking import shaken

pytest.importorskip("diffusers", reason="pipelines need the package's 'app' extra")

import torch
from diffusers import DiffusionPipeline

from embedding_estimate.demo.random_models import Family, random_model
from embedding_estimate.hosts.standalone.loading import quiet

Load = Callable[..., Any]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    made: dict[Family, Path] = {}

    def folder(family: Family) -> Path:
        if family not in made:
            made[family] = random_model(family, tmp_path_factory.mktemp("models") / family, seed=shaken(0))
        return made[family]

    return folder


@pytest.fixture
def load_pipeline(folders: Callable[[Family], Path]) -> Load:
    """Loads a pipeline of a family; the models are tiny and random."""

    def load(family: Family, dtype: torch.dtype = torch.float32) -> Any:
        with quiet():
            pipeline = DiffusionPipeline.from_pretrained(folders(family)).to(dtype)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load
