"""Embeddings of the demo model among other words, where they are typed."""

import pytest
import torch
from shaking import shaken

from embedding_estimate.demo import demo_model_path
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.sides import error
from embedding_estimate.teaching.teacher import REPORT_SEED, Task, Teacher, Trajectory

TEXT, WORDS = "(blurry:0.5), a (purple:0.5) (diamond:1.4)", "blurry, a purple diamond"
CONTEXTS = ("on a green background, {}", "noisy, {}, on the left", "{}, a small blue ring", "dark, {}, a red star")
TRAJECTORY = Trajectory("Euler", "Karras", 10, 7.0)


def emphasis_in_context(host: StandaloneHost, **values: object) -> float:
    """1 - sum of err(T[embedding]) / sum of err(T[bare words]), over contexts that nothing is trained in."""
    settings = Settings(text=TEXT, tokens=5, name="purple-gem", measure="Nothing", seed=shaken(0), **values)
    vectors = estimate(settings, host).embedding.vectors
    mine = words = 0.0
    with host.borrow() as model:
        teacher = Teacher(model, Task.of(settings, model))
        for context in CONTEXTS:
            prompt, bare = (teacher.replaced(context.replace("{}", text), TRAJECTORY) for text in (TEXT, WORDS))
            states = teacher.record(prompt, TRAJECTORY, [REPORT_SEED], 1)
            mine += error(teacher.student(vectors, context), states, 10)
            words += error(bare, states, 10)
    return 1 - mine / words


@pytest.mark.slow
def test_an_embedding_holds_among_other_words() -> None:
    host = StandaloneHost.load(demo_model_path(), device="cpu", dtype=torch.float32)
    contexts = {*host.info.contexts.train, *host.info.contexts.select}
    assert contexts.isdisjoint(CONTEXTS)
    by_default = emphasis_in_context(host)
    alone = emphasis_in_context(host, templates="{}")
    assert by_default > 0.3  # better than the words by themselves
    assert by_default > alone + 0.3
