from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="pipelines need the package's 'app' extra")

import torch
from diffusers import DiffusionPipeline

from embedding_estimate.demo.random_models import Family
from embedding_estimate.hosts.standalone.loading import quiet

Load = Callable[..., Any]


@pytest.fixture(scope="session")
def load_pipeline(random_folder: Callable[[Family], Path]) -> Load:
    """Loads a pipeline of a family; the models are tiny and random."""

    def load(family: Family, dtype: torch.dtype = torch.float32) -> Any:
        with quiet():
            pipeline = DiffusionPipeline.from_pretrained(random_folder(family)).to(dtype)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


@pytest.fixture(scope="session")
def copy_pipeline(load_pipeline: Load) -> Load:
    """The same from one that is loaded once. Its tokenizers, which take the longest to load, are those of all copies:
    for who adds no tokens."""
    loaded = cache(load_pipeline)

    def copied(family: Family, dtype: torch.dtype = torch.float32) -> Any:
        pipeline = copy.copy(loaded(family))
        for name, part in pipeline.components.items():
            if part is not None and not name.startswith("tokenizer"):
                setattr(pipeline, name, copy.deepcopy(part))
        return pipeline.to(dtype)

    return copied
