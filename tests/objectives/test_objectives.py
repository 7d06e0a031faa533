"""All objectives: their gradient by finite differences, their scale, what they refuse and what they say."""

from typing import Any

import pytest
import torch
from shaking import shaken
from toy import ToyModel

from embedding_estimate.errors import PromptError
from embedding_estimate.model.host import BorrowedModel
from embedding_estimate.model.meter import Meter, Passes
from embedding_estimate.objectives import attention, preparation_of, unet
from embedding_estimate.objectives.attention import WHOLE, AttentionPreparation
from embedding_estimate.objectives.objective import Objective, Preparation
from embedding_estimate.optimizers import LOSSES
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.plan import SKETCH, phases
from embedding_estimate.teaching.teacher import Task, Teacher

PARTS = ("Attention", "U-Net", "Transformer")


def preparation(toy: BorrowedModel, **values: Any) -> Preparation:
    settings = Settings(
        **{
            "text": "red (circle:1.8)",
            "name": "x",
            "steps": 6,
            "tokens": 2,
            "part": "U-Net",
            "templates": "{}",
            **values,
        }
    )
    [phase] = [phase for phase in phases(settings) if phase.part != SKETCH]
    return preparation_of(phase, Teacher(toy, Task.of(settings, toy)))


def prepared(toy: BorrowedModel, **values: Any) -> Objective[Any]:
    return preparation(toy, **values).prepare(start())


def start() -> dict[str, torch.Tensor]:
    return {"clip_l": torch.randn(2, 6, generator=torch.Generator().manual_seed(shaken(3)), dtype=torch.float64)}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_gradient_by_finite_differences(toy: ToyModel, part: str, loss: str) -> None:
    objective = prepared(toy, part=part, loss=loss, templates="{}\na {} star")
    drawn = objective.draw(torch.Generator().manual_seed(shaken(0)))
    assert torch.autograd.gradcheck(
        lambda value: objective.loss({"clip_l": value}, drawn), start()["clip_l"].requires_grad_()
    )


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_the_loss_starts_near_one_and_is_zero_for_the_prompt(toy: ToyModel, part: str, loss: str) -> None:
    plain = toy.token_vectors("red circle")
    objective = prepared(toy, part=part, loss=loss, text="red circle")
    generator = torch.Generator().manual_seed(shaken(0))
    losses = [float(objective.loss(start(), objective.draw(generator))) for _ in range(50)]
    assert 0.5 < sum(losses) / len(losses) < 2
    assert abs(float(objective.loss(plain, objective.draw(generator)))) < 1e-9
    assert objective.held_out(plain) < 1e-20  # of rounding
    assert objective.held_out(start()) > 0


@pytest.mark.parametrize("part", PARTS)
def test_errors_among_words_leave_the_bare_prompt_out(toy: ToyModel, part: str) -> None:
    """Held-out errors of different templates are means of the same number of things."""
    both, alone = (prepared(toy, part=part, templates=templates) for templates in ("{}\na {} star", "{}"))
    among_words = both.held_out_among_words(start())
    assert alone.held_out_among_words(start()) is None
    assert among_words is not None and among_words != pytest.approx(both.held_out(start()))
    if part == "Transformer":  # where nothing is drawn
        assert (among_words + alone.held_out(start())) / 2 == pytest.approx(both.held_out(start()))


@pytest.mark.parametrize("part", PARTS)
def test_no_teacher_call_in_the_loop(toy: ToyModel, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = prepared(toy, part=part)

    def encode(*args: object, **kind: object) -> None:
        raise AssertionError("the prompt was encoded in the loop")

    monkeypatch.setattr(toy, "encode", encode)
    monkeypatch.setattr(toy, "sample", encode)
    generator = torch.Generator().manual_seed(shaken(0))
    for _ in range(3):
        objective.loss(start(), objective.draw(generator))


def test_a_step_costs_one_forward_and_one_backward_per_state(toy: ToyModel) -> None:
    meter = Meter(toy)
    objective = prepared(meter, batch=5)
    before = meter.passes.total
    vectors = {key: value.requires_grad_() for key, value in start().items()}
    objective.loss(vectors, objective.draw(torch.Generator().manual_seed(shaken(0)))).backward()
    assert meter.passes.total - before == Passes(5, 5)


def test_checks_cost_at_most_a_twentieth_of_the_steps_between_them(toy: ToyModel) -> None:
    for batch in (1, 4, 16):
        meter = Meter(toy)
        objective = prepared(meter, batch=batch)
        before = meter.passes.total
        objective.held_out(start())
        assert (meter.passes.total - before).forwards <= 0.05 * 3 * batch * objective.check_every


def test_drawn_states_are_spread_over_the_sampling(toy: ToyModel) -> None:
    objective = prepared(toy, batch=6)
    generator = torch.Generator().manual_seed(shaken(0))
    for _ in range(20):
        _, states = objective.draw(generator)
        assert states.evaluation.tolist() == [0, 1, 2, 3, 4, 5]


def test_every_template_is_drawn(toy: ToyModel) -> None:
    objective = prepared(toy, templates="{}\na {}\n{} star")
    generator = torch.Generator().manual_seed(shaken(0))
    assert {objective.draw(generator)[0].template for _ in range(60)} == {"{}", "a {}", "{} star"}


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1, 1, 1, 1, 1, 1]), (3, [3, 3]), (4, [3, 3]), (8, [6])])
def test_attention_reads_templates_together_and_each_counts_the_same(
    toy: ToyModel, batch: int, sizes: list[int]
) -> None:
    templates = ["{}", "a {}", "{} star", "red {}", "a {} star", "big {}"]
    objective = prepared(toy, part="Attention", templates="\n".join(templates), batch=batch)
    groups = objective.fixed(torch.Generator(), sparing=False)
    assert [len(group) for group in groups] == sizes
    assert [example.template for group in groups for example in group] == templates
    with torch.no_grad():
        each = [float(objective.loss(start(), [example])) for group in groups for example in group]
        together = [float(objective.loss(start(), group)) for group in groups]
    assert sum(together) / len(together) == pytest.approx(sum(each) / len(each)) == pytest.approx(1)
    assert [len(group) for group in objective.fixed(torch.Generator(), sparing=True)] == [1] * 6


@pytest.mark.parametrize(("free", "sizes"), [(None, [3, 3]), (10**9, [6]), (1, [1] * 6)])
def test_as_many_templates_are_read_together_as_there_is_memory_for(
    toy: ToyModel, free: int | None, sizes: list[int]
) -> None:
    toy.free = free
    objective = prepared(toy, part="Attention", templates="\n".join(CONTEXTS[:6]))
    assert [len(group) for group in objective.fixed(torch.Generator(), sparing=False)] == sizes


def test_held_out_states_are_not_trained_on(toy: ToyModel) -> None:
    objective = prepared(toy, batch=64)
    example, _ = objective.draw(torch.Generator().manual_seed(shaken(0)))
    assert not set(example.train.seed.tolist()) & set(example.select.seed.tolist())
    assert torch.cdist(example.train.x.flatten(1), example.select.x.flatten(1)).min() > 0.1


def test_unet_takes_and_and_schedules_and_says_what_follows(toy: ToyModel) -> None:
    objective = prepared(toy, text="red circle :0.7 AND [green:blue:3] star :0.6")
    assert len(objective.notes) == 2
    assert "average" in objective.notes[0] and "do not sum to 1" in objective.notes[1]


def test_transformer_refuses_and(toy: ToyModel) -> None:
    with pytest.raises(PromptError, match=r"AND.*choose the U-Net part"):
        prepared(toy, part="Transformer", text="red AND green")


@pytest.mark.parametrize("part", ["Transformer", "Attention"])
def test_a_weight_of_the_whole_prompt_is_told_from_and(toy: ToyModel, part: str) -> None:
    with pytest.raises(PromptError, match=r"ends in a colon and a number.*with 1\.3.*choose the U-Net part"):
        prepared(toy, part=part, text="red circle:1.3")
    prepared(toy, part=part, text="red circle:1.3,")


def test_transformer_refuses_another_number_of_chunks(toy: ToyModel) -> None:
    with pytest.raises(PromptError, match="fills 2 chunks of 4 tokens and the embedding 1"):
        prepared(toy, part="Transformer", text="a red circle on a blue star")


@pytest.mark.parametrize(("template", "chunks"), [("{}", 1), ("x y z {}", 2)])
def test_transformer_is_judged_beside_the_empty_prompt(toy: ToyModel, template: str, chunks: int) -> None:
    """Of which there is another chunk where the prompt needs two."""
    objective = prepared(toy, part="Transformer", text="red circle", templates=template)
    texts = [template.replace("{}", text) for text in ("", "red circle")]
    sides = [toy.encode(text, evaluations=1, width=0, height=0) for text in texts]
    nothing, prompt = (side[0].parts[0][0].context for side in sides)
    assert prompt.shape[1] == chunks * nothing.shape[1]
    expected = (nothing.repeat(1, chunks, 1) - prompt).square().mean()
    assert objective.held_out_empty == pytest.approx(float(expected))


def test_transformer_matches_the_average_of_a_schedule(toy: ToyModel) -> None:
    """Stages of 3 and 3 evaluations: the best context is their mean."""
    objective = prepared(toy, part="Transformer", text="[red:green:2] circle")
    a, b = (stage.parts[0][0].context for stage in toy.encode("[red:green:2] circle", evaluations=6, width=0, height=0))
    example = objective.draw(torch.Generator())
    torch.testing.assert_close(example.target[0], (a + b) / 2)
    assert list(objective.notes) == [
        "the prompt changes during sampling and an embedding cannot: it is matched on average"
    ]


def test_a_prompt_that_does_nothing_is_refused(toy: ToyModel) -> None:
    with pytest.raises(PromptError, match="does what the empty prompt does"):
        prepared(toy, text="(,)")


def test_attention_refuses_and(toy: ToyModel) -> None:
    with pytest.raises(PromptError, match=r"AND.*choose the U-Net part"):
        prepared(toy, part="Attention", text="red AND green")


def test_attention_reads_each_stretch_of_a_schedule_by_itself(toy: ToyModel) -> None:
    objective = prepared(toy, part="Attention", text="[red:green:2] circle")
    assert list(objective.notes) == [
        "the prompt changes during sampling and an embedding cannot: it is matched on average"
    ]
    [example] = objective.draw(torch.Generator())
    contexts = [
        toy.encode(text, evaluations=6, width=0, height=0)[0].parts[0][0] for text in ("red circle", "green circle")
    ]
    red, green = ((example.probes.read(context)[0] - example.probes.aim).abs() < 1e-12 for context in contexts)
    assert bool((red ^ green).all()) and red[0] and green[-1]  # rows come in the order of evaluations


def test_no_unet_in_the_loop_of_the_attention_part(toy: ToyModel) -> None:
    meter = Meter(toy)
    objective = prepared(meter, part="Attention")
    assert meter.passes.total.backwards == 32 + 16  # states of both sets
    before = meter.passes.total
    objective.loss(start(), objective.draw(torch.Generator().manual_seed(shaken(0))))
    objective.held_out(start())
    assert meter.passes.total == before


def test_more_contexts_cost_the_unet_nothing(toy: ToyModel) -> None:
    """From six on, which is as many as there are trajectories; each is trained in, and each chosen by."""
    templates = ["{}", "a {}", "{} star", "red {}", "a {} star", "big {}", "{} cat", "blue {}", "{} blue", "{} red"]
    calls = []
    for number in (6, 10):
        meter = Meter(toy)
        objective = prepared(meter, part="Attention", templates="\n".join(templates[:number]))
        calls.append(meter.passes.total)
        drawn = [example.template for group in objective.fixed(torch.Generator(), sparing=False) for example in group]
        assert drawn == templates[:number]
    assert calls[0] == calls[1]


@pytest.mark.parametrize(("tokens", "rows"), [(2, 800 + 150), (100, 8 * 600 + 150)])
def test_what_the_rows_take_by_hand(toy: ToyModel, tokens: int, rows: int) -> None:
    """A query of six numbers in the U-Net's precision, here 8 bytes, and a gradient of as many, 4 bytes each."""
    part = preparation(toy, part="Attention")
    assert isinstance(part, AttentionPreparation)
    assert part.megabytes({"clip_l": torch.zeros(tokens, 6)}) == pytest.approx(rows * 6 * (8 + 4) / 2**20)


@pytest.mark.parametrize(("memory", "told"), [(499, True), (500, False)])
def test_memory_for_less_than_half_of_the_rows_is_told(
    toy: ToyModel, memory: int, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_megabytes", lambda model, rows: 999.5)
    notes = prepared(toy, part="Attention", attention_memory=memory).notes
    line = f"attention_memory={memory} holds 50% of the rows that so many vectors ask for: with 1000 they keep more of"
    assert [line in note for note in notes] == ([True] if told else [])


def test_a_batch_of_contexts_is_drawn(toy: ToyModel) -> None:
    objective = prepared(toy, part="Attention", templates="{}\na {}\n{} star\nbig {}\nred {}", batch=3)
    generator = torch.Generator().manual_seed(shaken(0))
    draws = [[example.template for example in objective.draw(generator)] for _ in range(40)]
    assert all(len(set(draw)) == 3 for draw in draws)
    assert {template for draw in draws for template in draw} == {"{}", "a {}", "{} star", "big {}", "red {}"}


def test_what_the_attention_part_holds_out_is_in_true_units(toy: ToyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unet, "SELECT_SEEDS", WHOLE.select_seeds)  # so that both judge on the same states
    monkeypatch.setattr(unet, "SELECT_STATES", WHOLE.select_states)
    one, other = prepared(toy, part="Attention"), prepared(toy, part="U-Net")
    assert one.held_out_start == pytest.approx(other.held_out(start()))
    assert one.held_out_empty == pytest.approx(other.held_out_empty)


def test_words_are_put_around_no_and(toy: ToyModel) -> None:
    objective = prepared(toy, text="red AND green", templates="{}\na {} star")
    generator = torch.Generator().manual_seed(shaken(0))
    assert {objective.draw(generator)[0].template for _ in range(20)} == {"{}"}


def test_transformer_leaves_out_a_template_in_which_the_chunks_differ(toy: ToyModel) -> None:
    objective = prepared(toy, part="Transformer", text="a red big circle", templates="{}\na {} star")
    assert [example.template for example in objective.fixed(torch.Generator(), sparing=False)] == ["{}"]
    assert "'a {} star' was left out" in objective.notes[0]


MANY = "\n".join(["{}", *("a " * (number // 4) + "{}" + " star" * (number % 4) for number in range(1, 24))])


@pytest.mark.parametrize(
    ("templates", "readers"),
    [("{}", [1]), ("{}\na {}", [1, 1]), ("\n".join(MANY.splitlines()[:8]), [2] * 4), (MANY, [6] * 4)],
)
def test_the_contexts_that_read_the_same_rows_stand_side_by_side(
    toy: ToyModel, templates: str, readers: list[int]
) -> None:
    objective = prepared(toy, part="Attention", templates=templates)
    portions = [id(example.probes.layers) for example in objective.trained_in()]
    assert [portions.count(portion) for portion in dict.fromkeys(portions)] == readers
    assert portions == sorted(portions, key=portions.index)  # so that they are read at once


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_contexts_of_one_length_are_read_at_once_as_one_by_one(toy: ToyModel, loss: str) -> None:
    objective = prepared(toy, part="Attention", templates=MANY, loss=loss)
    contexts = list(objective.trained_in())
    assert len({example.template.count(" ") for example in contexts[:4]}) > 1  # of several lengths
    alone = torch.stack([objective.loss(start(), [example]) for example in contexts])
    torch.testing.assert_close(objective.loss(start(), contexts), alone.mean())


CONTEXTS = ["{}", *("a " * number + "{} star" for number in range(31))]


def test_attention_trains_in_a_few_contexts_before_all(toy: ToyModel) -> None:
    objective = prepared(toy, part="Attention", templates="\n".join(CONTEXTS), learning_steps=35)
    (few, first), (every, rest) = objective.stages()
    assert (first, rest) == (10, 5)  # of those behind the sketch's 20
    assert [example.template for example in few.trained_in()] == CONTEXTS[::2]
    assert every is objective and [example.template for example in every.trained_in()] == CONTEXTS
    assert few.held_out(start()) == every.held_out(start())


@pytest.mark.parametrize(
    "settings", [{"templates": "\n".join(CONTEXTS[:-1])}, {"templates": "\n".join(CONTEXTS), "optimizer": "Adam"}]
)
def test_all_contexts_from_the_first_step_on(toy: ToyModel, settings: dict[str, Any]) -> None:
    """Where they are few, or where each step draws some of them."""
    objective = prepared(toy, part="Attention", **settings)
    assert [stage for stage, _ in objective.stages()] == [objective]
