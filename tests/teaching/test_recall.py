"""What is asked of the U-Net again is answered from memory, and only if nothing has changed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from toy import ToyModel

from embedding_estimate.model.host import Conditioning
from embedding_estimate.teaching.probing import Prober
from embedding_estimate.teaching.recall import Recall, RecallingModel, digest
from embedding_estimate.teaching.sides import Side, States
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

PATH = Trajectory("Euler", "Karras", 3, 4.0)
MEGABYTE = 2**20


def megabyte(value: int) -> list[Tensor]:
    return [torch.full((MEGABYTE,), value, dtype=torch.uint8)]


def kept(recall: Recall, key: bytes) -> int:
    """The value of the megabyte that is kept for the key."""
    answer = recall.find(key)
    assert answer is not None
    return int(answer[0][0])


def asked(toy: ToyModel, recall: Recall, seed: int = 0) -> Tensor:
    """A prediction at the latent of a seed."""
    context = toy.encode("red circle", evaluations=1, width=32, height=32)[0].parts[0][0]
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return RecallingModel(toy, recall).denoise(x, torch.ones(1), context)


def test_a_question_is_asked_once(toy: ToyModel) -> None:
    recall = Recall()
    first, again = asked(toy, recall), asked(toy, recall)
    assert torch.equal(first, again) and toy.denoised == 1
    again.zero_()
    assert torch.equal(asked(toy, recall), first)  # each answer is a copy
    asked(toy, recall, seed=1)
    assert toy.denoised == 2


def test_where_a_gradient_is_wanted_the_model_is_asked(toy: ToyModel) -> None:
    model = RecallingModel(toy, Recall())
    context = toy.encode("red", evaluations=1, width=32, height=32)[0].parts[0][0].context.requires_grad_()
    for _ in range(2):
        model.denoise(torch.ones(1, 4, 4, 4), torch.ones(1), Conditioning(context)).sum().backward()
    assert toy.denoised == 2 and context.grad is not None


X, SIGMA, CONTEXT, VECTOR = torch.arange(4.0), torch.ones(1), torch.arange(6.0).view(1, 2, 3), torch.zeros(1, 2)
QUESTION = (X, SIGMA, CONTEXT, VECTOR, "name", 1)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param((X.nextafter(torch.full((4,), 9.0)), *QUESTION[1:]), id="latent, by the last bit"),
        pytest.param((X.view(2, 2), *QUESTION[1:]), id="shape of the latent"),
        pytest.param((X.view(torch.int32), *QUESTION[1:]), id="type of the latent"),
        pytest.param((X, 2 * SIGMA, *QUESTION[2:]), id="noise"),
        pytest.param((X, SIGMA, CONTEXT + 1, *QUESTION[3:]), id="context"),
        pytest.param((X, SIGMA, CONTEXT, VECTOR - 1, *QUESTION[4:]), id="vector"),
        pytest.param((X, SIGMA, CONTEXT, None, *QUESTION[4:]), id="no vector"),
        pytest.param((*QUESTION[:4], "eman", 1), id="text"),
        pytest.param((*QUESTION[:5], 2), id="number"),
        pytest.param((SIGMA, X, *QUESTION[2:]), id="order"),
    ],
)
def test_every_part_of_a_question_is_in_its_key(other: tuple[Tensor | str | int | None, ...]) -> None:
    assert digest(*QUESTION) == digest(*(part.clone() if isinstance(part, Tensor) else part for part in QUESTION))
    assert digest(*QUESTION) != digest(*other)


@pytest.mark.parametrize(
    "view", [torch.ones(1).expand(1), torch.ones(1, 1).expand(2, 3), torch.ones(4, 6)[::2, ::2], torch.tensor(1.0)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_view_has_the_key_of_its_values(view: Tensor, dtype: torch.dtype) -> None:
    view = view.to(dtype)
    assert digest(view) == digest(torch.ones(view.shape, dtype=dtype))


def test_the_answer_that_was_not_asked_for_longest_goes_first() -> None:
    recall = Recall(megabytes=2)
    for number, key in enumerate((b"a", b"b")):
        recall.keep(key, megabyte(number))
    assert recall.find(b"a") is not None
    recall.keep(b"c", megabyte(2))
    assert recall.find(b"b") is None
    assert [kept(recall, key) for key in (b"a", b"c")] == [0, 2]


def test_what_is_larger_than_the_memory_pushes_nothing_out() -> None:
    recall = Recall(megabytes=1)
    recall.keep(b"a", megabyte(0))
    recall.keep(b"b", [*megabyte(1), *megabyte(1)])
    assert recall.find(b"a") is not None and recall.find(b"b") is None


def test_an_answer_that_is_kept_again_counts_once() -> None:
    recall = Recall(megabytes=2)
    for number in range(3):
        recall.keep(b"a", megabyte(number))
        recall.keep(b"b", megabyte(number))
    assert [kept(recall, key) for key in (b"a", b"b")] == [2, 2]


def test_a_new_job_asks_one_known_question_to_trust_the_rest(toy: ToyModel) -> None:
    recall = Recall()
    before = [asked(toy, recall, seed) for seed in range(3)]
    recall.begin()
    assert all(torch.equal(asked(toy, recall, seed), before[seed]) for seed in range(3))
    assert toy.denoised == 3 + 1


def test_another_model_is_seen_at_the_first_known_question(toy: ToyModel) -> None:
    recall = Recall()
    before = [asked(toy, recall, seed) for seed in range(3)]
    recall.begin()
    for weight in toy.attention.to_out.parameters():
        weight[0, 0] += 1e-9
    after = [asked(toy, recall, seed) for seed in range(3)]
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert toy.denoised == 6


def probed(toy: ToyModel, recall: Recall | None, change: Callable[[States], States] = lambda states: states) -> Tensor:
    """The aims of probes made twice by one prober, so that its random numbers go on."""
    teacher = Teacher(toy, Task("red (circle:1.5)", False, ("",), 32, 32), recall=recall)
    side = teacher.replaced("red (circle:1.5)", PATH)
    states = change(teacher.record(side, PATH, [1], 1))
    prober = Prober(toy, rows=1.0, batch=2, seed=3, checkpointed=False, recall=recall)
    return torch.cat([prober([(side, states)], rows=6).aim for _ in range(2)])


def test_probes_are_made_once_and_random_numbers_go_on(toy: ToyModel) -> None:
    recall = Recall()
    alone = probed(toy, None)
    first = probed(toy, recall)
    passes = toy.denoised
    recall.begin()
    assert torch.equal(probed(toy, recall), first) and torch.equal(first, alone)
    assert toy.denoised == passes + 2  # the first step of the trajectory, both sides


def test_probes_of_other_states_are_made_anew(toy: ToyModel) -> None:
    recall = Recall()
    probed(toy, recall)
    passes = toy.denoised
    fewer = probed(toy, recall, lambda states: states[:2])
    assert toy.denoised == passes + 4  # the trajectory is known; two states are probed twice
    assert torch.equal(fewer, probed(toy, None, lambda states: states[:2]))


def test_vectors_that_change_are_not_kept(toy: ToyModel) -> None:
    recall = Recall()
    teacher = Teacher(toy, Task("red", False, ("",), 32, 32), recall=recall)
    vectors = {"clip_l": toy.table[:2]}

    def passes(side: Side) -> int:
        before = toy.denoised
        with torch.no_grad():
            for _ in range(2):
                side.denoise(torch.ones(1, 4, 4, 4), torch.ones(1), 0)
        return toy.denoised - before

    assert passes(teacher.student(vectors)) == 2
    assert passes(teacher.student(vectors, lasting=True)) == 1
    assert passes(teacher.typed(1.2).replaced("red", PATH)) == 1


def test_an_answer_of_an_earlier_job_that_was_pushed_out_is_kept_again() -> None:
    recall = Recall(megabytes=2)
    recall.keep(b"old", megabyte(0))
    recall.begin()
    for key in (b"a", b"b"):
        recall.keep(key, megabyte(1))
    recall.keep(b"old", megabyte(2))
    assert kept(recall, b"old") == 2
