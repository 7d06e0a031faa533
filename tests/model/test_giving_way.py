"""Work that can wait gives the model back while somebody else wants it, and goes on as if nothing had been."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from toy import ToyHost, ToyModel

from embedding_estimate.errors import ModelError
from embedding_estimate.model import giving_way
from embedding_estimate.model.giving_way import GivingWay
from embedding_estimate.progress import Stopped, StopToken
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

PATH = Trajectory("Euler", "Karras", 4, 4.0)


class SharedHost(ToyHost):
    """Somebody wants the model after so many predictions, and has it for a while."""

    def __init__(self, wanted_after: set[int], meanwhile: Callable[[ToyHost], None] = lambda host: None) -> None:
        super().__init__()
        self.loans = 0
        self._wanted_after = wanted_after
        self._meanwhile = meanwhile

    @contextmanager
    def borrow(self, check: Callable[[], None] = lambda: None) -> Iterator[ToyModel]:
        self.loans += 1
        with super().borrow(check) as model:
            yield model

    def wanted(self) -> bool:
        if self.lent:
            return self.model.denoised in self._wanted_after
        if self.model.denoised in self._wanted_after:
            self._wanted_after.remove(self.model.denoised)
            self._meanwhile(self)
            return True  # they wait until the next look
        return False


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving_way, "POLL", 0)


def sampled(host: ToyHost) -> torch.Tensor:
    with GivingWay(host, lambda: None) as model:
        teacher = Teacher(model, Task("red (circle:1.5)", False, ("dull",), 32, 32))
        latents = teacher.run(teacher.replaced("red (circle:1.5)", PATH), PATH, [1], 1)
    assert not host.lent
    return latents


def test_it_goes_on_where_it_was() -> None:
    alone, shared = SharedHost(set()), SharedHost({2, 6})
    assert torch.equal(sampled(alone), sampled(shared))
    assert (alone.loans, shared.loans) == (1, 3)


def test_gradients_are_off_where_they_were() -> None:
    def with_gradients(host: ToyHost) -> None:
        torch.set_grad_enabled(True)

    with torch.no_grad(), GivingWay(SharedHost({0}, with_gradients), lambda: None) as model:
        model.encode("red", evaluations=1, width=32, height=32)
        assert not torch.is_grad_enabled()


def test_another_model_ends_it_in_one_line() -> None:
    def other(host: ToyHost) -> None:
        host.model.info = replace(host.model.info, hash="another")

    host = SharedHost({2}, other)
    with pytest.raises(ModelError, match=r"^the model or its options were changed in between; start again"):
        sampled(host)
    assert not host.lent


def test_a_stop_ends_a_wait() -> None:
    stop = StopToken()
    host = SharedHost({0}, lambda _: stop.stop(save=True))
    with pytest.raises(Stopped), GivingWay(host, stop.check) as model:
        model.encode("red", evaluations=1, width=32, height=32)
    assert not host.lent and host.loans == 1
