"""A dry run foretells the passes of the U-Net that the real run is then seen to make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from suites import quick_first
from toy import ToyHost, ToyModel

from embedding_estimate.errors import PromptError, SettingsError
from embedding_estimate.estimation import memory
from embedding_estimate.estimation.dry_run import DryRun, dry_run
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.estimation.memory import Memory
from embedding_estimate.estimation.passes import ROWS, Range, WithoutUNet
from embedding_estimate.estimation.trainer import estimate
from embedding_estimate.fidelity.previews import Preview, Previews
from embedding_estimate.model.host import Conditioning
from embedding_estimate.model.meter import Passes, StagePasses
from embedding_estimate.optimizers import MOST_EVALUATIONS, make_optimizer
from embedding_estimate.progress import Progress
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.batches import kept

U_NET: dict[str, Any] = {"part": "U-Net", "templates": "{}", "learning_steps": 7}
TWO_WEIGHTS = "(red:1.5) circle (blue:0.6) star"


def settings(**values: Any) -> Settings:
    return Settings(**{"text": "(red:1.5) circle", "name": "madeup", "steps": 4, "measure": "Nothing", **values})


def ignored(preview: Preview) -> None:
    """Takes a preview."""


def seen(**values: Any) -> StagePasses:
    """The passes of a real run, which are all that its model saw."""
    host = ToyHost()
    result = estimate(settings(**values), host, Listener(on_preview=Previews(ignored, pytest.fail).make))
    assert result.passes.total.forwards == host.model.denoised
    return result.passes


def planned(**values: Any) -> DryRun:
    return dry_run(settings(**values), ToyHost())


def holds(range_: Range, passes: Passes) -> bool:
    least, most = range_.least, range_.most
    return least.forwards <= passes.forwards <= most.forwards and least.backwards <= passes.backwards <= most.backwards


@pytest.mark.parametrize(
    "values",
    quick_first(
        6,
        [
            {**U_NET, "part": "Attention + U-Net", "learning_steps": 24},
            {"use": "Alone", "learning_steps": 24, "batch": 3},
            {"steps": 1, "optimizer": "Adam", "learning_steps": 5},
            {"part": "Transformer", "learning_steps": 5},
            {**U_NET, "save_every": 2, "preview_every": 3},
            {**U_NET, "other_prompt": "dull", "batch": 2, "learning_steps": 10},
            {**U_NET, "text": "red AND circle:0.5"},
            {"text": "red circle"},
            {},
            {"tokens": 1},
            {"tokens": 4, "initial_prompt": "star"},
            {"prompt_type": "Negative Prompt", "other_prompt": "dull\nsmall star\nbig"},
            {"other_prompt": "red AND star"},
            {"text": "[red:star:2]", "learning_steps": 24},
            {"text": TWO_WEIGHTS, "words": "One per weight", "tokens": 3, "learning_steps": 10},
            {"text": TWO_WEIGHTS, "words": "As few as needed", "tokens": 3, "learning_steps": 10},
            U_NET,
            {**U_NET, "tokens": 1, "loss": "L1"},
            {**U_NET, "other_prompt": "dull", "batch": 2, "learning_steps": 45},
            {**U_NET, "text": TWO_WEIGHTS, "words": "One per weight", "tokens": 3},
        ],
    ),
)
def test_the_passes_of_a_training_are_foretold(values: dict[str, Any]) -> None:
    counted, plan = seen(**values), planned(**values)
    assert plan.prepare == Range.exactly(counted.prepare) and plan.train == Range.exactly(counted.train)
    assert counted.measure == Passes()


@pytest.mark.parametrize(
    "values",
    quick_first(
        2,
        [
            {**U_NET, "templates": ""},  # the bare words may be kept
            {**U_NET, "optimizer": "LBFGS"},
            {**U_NET, "learning_steps": 90, "early_stop": 1, "preview_every": 40},
            {**U_NET, "text": TWO_WEIGHTS, "words": "As few as needed", "tokens": 3, "emphasis_goal": 0.3},
            {**U_NET, "text": TWO_WEIGHTS, "words": "As few as needed", "learning_steps": 8},
            {"typed_weight": 0.0, "learning_steps": 10},
            {**U_NET, "typed_weight": 0.0, "preview_every": 30},
            {"part": "Attention + U-Net", "typed_weight": 0.0, "learning_steps": 10},
        ],
    ),
)
def test_where_it_depends_on_the_training_the_passes_are_bounded(values: dict[str, Any]) -> None:
    counted, plan = seen(**values), planned(**values)
    assert holds(plan.prepare, counted.prepare) and holds(plan.train, counted.train)
    assert plan.train.least != plan.train.most


@pytest.mark.parametrize("measure", quick_first(1, ["Full with images", "Full", "Quick with images"]))
@pytest.mark.parametrize(
    "values",
    quick_first(
        2,
        [
            {"part": "Transformer", "learning_steps": 3, "use": "Alone"},
            {"part": "Transformer", "learning_steps": 3, "typed_weight": 1.2, "other_prompt": "dull"},
            {"part": "Transformer", "learning_steps": 3, "initial_prompt": "star"},
            {**U_NET, "text": "red AND circle:0.5"},
            {"text": TWO_WEIGHTS, "words": "One per weight", "tokens": 3, "learning_steps": 3, "steps": 1},
        ],
    ),
)
def test_the_passes_of_figures_and_images_are_bounded(brief: None, values: dict[str, Any], measure: str) -> None:
    """They are fewer where the vectors end as the bare words, of which the predictions are there already."""
    measured = seen(**values, measure=measure).measure
    measuring = planned(**values, measure=measure).measure
    assert holds(measuring, measured) and measuring.most.backwards == 0


@pytest.mark.parametrize("measure", ["Full", "Full with images"])
def test_they_are_known_where_there_is_nothing_to_train(brief: None, measure: str) -> None:
    counted = seen(text="red circle", measure=measure)
    plan = planned(text="red circle", measure=measure)
    assert plan.measure == Range.exactly(counted.measure) and counted.measure.forwards > 0
    assert not plan.phases and plan.memory == Memory()


def test_the_passes_by_hand() -> None:
    """Six trajectories of four steps to train on and three to choose on, both sides of the guidance at each; the start
    is judged on twelve states. Eight samples for the coordinates and seven steps of four states; one check."""
    (work,) = planned(**U_NET).phases
    assert work.prepare == Range.exactly(Passes((6 + 3) * 4 * 2 + 12, 0))
    assert work.train == Range.exactly(Passes((8 + 7) * 4 + 12, (8 + 7) * 4))
    assert seen(**U_NET) == StagePasses(work.prepare.most, work.train.most, Passes())


def test_templates_share_the_trajectories() -> None:
    """Three for each of two to train on and one to choose on, of which half of 24 states are kept; both sides of the
    guidance at each state, and the start is judged on what is kept."""
    (work,) = planned(**{**U_NET, "templates": "{}\na {}", "steps": 20}).phases
    assert work.prepare == Range.exactly(Passes(2 * (3 + 1) * 20 * 2 + 2 * 12, 0))


def test_the_phases_are_those_that_run() -> None:
    works = planned(part="Attention + U-Net", learning_steps=24, sampler="DPM++ SDE").phases
    assert [(work.phase.part, work.phase.steps) for work in works] == [("Sketch", 20), ("Attention", 4), ("U-Net", 12)]
    assert [list(work.contexts) for work in works] == [["{}"], ["{}", "a {}", "{} star"], ["{}", "a {}", "{} star"]]
    assert [work.phase.trajectory.sampler for work in works] == ["Euler", "Euler", "DPM++ SDE"]


def test_a_dry_run_trains_nothing(toy_host: ToyHost) -> None:
    """Of the U-Net it only asks how long a pass takes, three times each for one and four latents and back, and what a
    pass keeps in memory."""
    notes: list[str] = []
    progress: list[Progress] = []
    plan = dry_run(settings(tokens=1), toy_host, Listener(on_notes=notes.extend, on_progress=progress.append))
    assert toy_host.model.denoised == 3 * (1 + 4 + 4) + 1 and not toy_host.lent
    assert list(plan.begun.notes) == notes and not progress


def test_what_an_estimate_refuses_is_refused() -> None:
    with pytest.raises(PromptError, match="composes predictions with AND"):
        planned(text="red AND star")
    with pytest.raises(SettingsError, match="a prompt chunk of this model holds 4 tokens"):
        planned(tokens=5)


def test_hooks_see_rows_of_every_cross_attention(toy: ToyModel) -> None:
    model, conditioning = WithoutUNet(toy), toy.encode("red", evaluations=1, width=32, height=32)[0].parts[0][0]
    x, shapes = torch.zeros(3, 4, 4, 4), []
    hook = toy.attention.to_q.register_forward_hook(lambda module, arguments, queries: shapes.append(queries.shape))
    with torch.no_grad():
        model.denoise(x, torch.ones(3), conditioning)
    assert not shapes
    learned = Conditioning(conditioning.context.clone().requires_grad_())
    denoised = model.denoise(x, torch.ones(3), learned)
    hook.remove()
    assert shapes == [(3, ROWS, 6)] and denoised.shape == x.shape and denoised.requires_grad
    assert toy.denoised == 0


def test_a_line_search_asks_no_more_often_than_is_said() -> None:
    """A slope without an end, so that the search goes on as long as it may."""
    asked = 0
    leaf = torch.zeros(2, requires_grad=True)
    optimizer = make_optimizer("LBFGS", [leaf], 1.0)

    def evaluate() -> float:
        nonlocal asked
        asked += 1
        leaf.grad = -torch.ones_like(leaf)
        return -float(leaf.detach().sum())

    optimizer.step(evaluate)
    assert 20 < asked <= MOST_EVALUATIONS


def test_what_autograd_keeps_is_counted_once_and_without_what_was_there() -> None:
    weight, leaf = torch.ones(5, 100), torch.ones(100, 100, requires_grad=True)

    def call() -> torch.Tensor:
        kept_by_two = leaf.exp()  # 40,000 bytes, for its own derivative and the next one's
        return kept_by_two.square() @ weight.T

    assert kept(call) == 40_000


@pytest.mark.parametrize(
    ("values", "latents"), quick_first(2, [({"batch": 2}, 2), ({**U_NET, "batch": 9}, 9), ({}, 4), (U_NET, 4)])
)
def test_memory_by_hand(monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], latents: int) -> None:
    """One latent of 4 x 4 cells is measured, and so many of them are kept together."""
    sizes: list[int] = []

    def counted(call: Callable[[], Any]) -> int:
        sizes.append(kept(call))
        return sizes[-1]

    monkeypatch.setattr(memory, "kept", counted)
    *_, work = planned(**values).phases
    assert work.memory.unet == latents * sizes[0] and work.memory.text_encoder == sizes[-1]
    numbers = 2 * 6  # of two vectors
    copies = 3 + 2 * 50 if work.phase.optimizer == "LBFGS" else 3 + 2
    assert work.memory.vectors == numbers * 4 * copies
    recorded = {"U-Net": (6 + 3) * 4, "Attention": (6 + 4) * 4 + 32 + 16}[work.phase.part]
    assert work.memory.states == recorded * 3 * (4 * 4 * 4) * 4  # bytes
    assert (work.memory.rows > 0) == (work.phase.part == "Attention")
    assert work.memory.total == sum(vars(work.memory).values())


def test_the_rows_take_no_more_than_the_setting_allows() -> None:
    *_, few = planned(attention_memory=1, tokens=4).phases
    assert few.memory.rows <= 2**20
