"""Pictures on the way, on the toy host."""

from typing import Any

import pytest
import torch
from toy import ToyHost

from embedding_estimate.estimation.listener import Listener
from embedding_estimate.estimation.trainer import Estimate, estimate
from embedding_estimate.fidelity.previews import Preview, Previews, picture
from embedding_estimate.fidelity.protocol import IMAGE_SEEDS, TRAJECTORY
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.teacher import Task, Teacher

SAMPLED = 2 * TRAJECTORY.steps  # samples that one picture takes through the U-Net, both sides


class Watched:
    """An estimate with previews, and what came of them."""

    def __init__(self, host: ToyHost):
        self.host = host
        self.seen: list[Preview] = []
        self.failures: list[str] = []
        self.stop = StopToken()

    def run(self, **values: Any) -> Estimate:
        given: dict[str, Any] = {
            "text": "red (circle:1.8)",
            "name": "it",
            "tokens": 2,
            "learning_steps": 20,
            "measure": "Nothing",
        }
        previews = Previews(self.seen.append, on_failure=self.failures.append)
        return estimate(Settings(**given | values), self.host, Listener(on_preview=previews.make), stop=self.stop)


@pytest.fixture
def watched(toy_host: ToyHost) -> Watched:
    return Watched(toy_host)


def test_a_row_comes_every_n_steps(watched: Watched) -> None:
    result = watched.run(preview_every=8)
    assert [preview.step for preview in watched.seen] == [8, 16] and watched.failures == []
    first, second = (preview.pictures for preview in watched.seen)
    assert list(first) == ["prompt", "embedding", "empty"]
    assert first["prompt"] is second["prompt"] and first["empty"] is second["empty"]
    assert first["embedding"].tobytes() != second["embedding"].tobytes()

    teacher = Teacher(watched.host.model, Task("red (circle:1.8)", False, ("",), 32, 32))
    latents = teacher.run(teacher.replaced("red (circle:1.8)", TRAJECTORY), TRAJECTORY, IMAGE_SEEDS[:1], 1)
    assert first["prompt"].tobytes() == picture(watched.host.model.decode(latents)[0]).tobytes()
    assert watched.seen[0].side_by_side().size == (12, 4)
    assert result.stopped == "done"


def test_they_cost_what_is_said_and_change_nothing(watched: Watched) -> None:
    without = watched.run()
    assert watched.seen == []
    beside = watched.run(preview_every=10)
    empty = TRAJECTORY.steps  # both of its sides are one
    assert beside.unet_forwards - without.unet_forwards == (1 + 2) * SAMPLED + empty
    assert torch.equal(beside.embedding.vectors["clip_l"], without.embedding.vectors["clip_l"])


def test_a_stop_in_the_middle_saves(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = watched.host.model.sample

    def stopping(*args: Any, **more: Any) -> torch.Tensor:
        if more["seeds"] == list(IMAGE_SEEDS[:1]) or more["seeds"] == IMAGE_SEEDS[:1]:
            watched.stop.stop(save=True)
        return sample(*args, **more)

    monkeypatch.setattr(watched.host.model, "sample", stopping)
    result = watched.run(preview_every=5)
    assert (result.stopped, result.steps) == ("interrupted", 6)
    assert watched.seen == [] and watched.failures == []


@pytest.mark.parametrize("error", [MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory\nmore of it")])
def test_a_failure_is_said_once_and_ends_nothing(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def exhausted(latents: object) -> None:
        raise error

    monkeypatch.setattr(watched.host.model, "decode", exhausted)
    assert watched.run(preview_every=5).stopped == "done"
    assert len(watched.failures) == 1 and watched.seen == []
    assert "no previews from step 5 on" in watched.failures[0] and "out of memory" in watched.failures[0]
    assert "\n" not in watched.failures[0]
