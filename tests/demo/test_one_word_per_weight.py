"""One word for each weight, on the demo model: what it reaches beside one word of as many vectors."""

import pytest
import torch
from shaking import shaken

from embedding_estimate.demo import demo_model_path
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.fidelity.protocol import Fidelity
from embedding_estimate.hosts.standalone.host import StandaloneHost
from embedding_estimate.settings import Settings

TEXT = "on a (red:1.5) background, a black diamond, (outlined:0.6), blurry"  # thirteen tokens


@pytest.fixture(scope="module")
def host() -> StandaloneHost:
    return StandaloneHost.load(demo_model_path(), device="cpu", dtype=torch.float32)


def measured(host: StandaloneHost, words: str, tokens: int) -> tuple[str, Fidelity]:
    settings = Settings(
        text=TEXT, words=words, tokens=tokens, name="gem", measure="Full", learning_steps=40, seed=shaken(0)
    )
    result = estimate(settings, host)
    assert result.fidelity is not None
    return result.phrase, result.fidelity


@pytest.mark.slow
def test_words_reach_what_one_word_of_as_many_vectors_does_not(host: StandaloneHost) -> None:
    one, (phrase, several) = measured(host, "One", 8)[1], measured(host, "One per weight", 8)
    assert phrase == "gem-a (gem-b:1.5) gem-c (gem-d:0.6) gem-e"
    assert several.emphasis_explained > 0.9 > one.emphasis_explained
    assert several.emphasis_in_context > 0.8 > one.emphasis_in_context
