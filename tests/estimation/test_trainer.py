"""The whole estimate on the toy host: what it returns, when it stops, what it keeps."""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from spying import spy
from suites import quick_first
from toy import ToyHost

from embedding_estimate.errors import Interrupted, ModelError, PromptError, SettingsError
from embedding_estimate.estimation.listener import Listener
from embedding_estimate.estimation.trainer import Estimate, estimate
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.model.host import Conditioning, Vectors
from embedding_estimate.objectives.attention import AttentionObjective
from embedding_estimate.objectives.transformer import TransformerObjective
from embedding_estimate.objectives.unet import UNetObjective, UNetPreparation
from embedding_estimate.optimizers import OPTIMIZERS, make_optimizer
from embedding_estimate.progress import Progress, StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.plan import SKETCH_STEPS
from embedding_estimate.training import descent
from embedding_estimate.training.preconditioning import SAMPLES, Preconditioned
from embedding_estimate.training.start import starting_vectors


def settings(**values: Any) -> Settings:
    return Settings(
        **{
            "text": "red (circle:1.8)",
            "name": "madeup",
            "part": "U-Net",
            "templates": "{}",
            "steps": 6,
            "learning_steps": 60,
            "tokens": 2,
            "measure": "Nothing",
            **values,
        }
    )


def run(host: ToyHost, **values: Any) -> Estimate:
    return estimate(settings(**values), host)


def test_training_carries_the_weights_into_the_vectors(toy_host: ToyHost) -> None:
    result = run(toy_host, learning_steps=200, measure="Full")
    assert result.stopped == "done" and result.steps == 200
    assert result.fidelity is not None and result.fidelity.emphasis_explained is not None
    assert result.fidelity.emphasis_explained > 0.5
    assert result.embedding.vectors["clip_l"].shape == (2, 6)
    assert not toy_host.lent


def test_the_same_settings_give_the_same_vectors(toy_host: ToyHost) -> None:
    first, second = run(toy_host), run(toy_host)
    assert torch.equal(first.embedding.vectors["clip_l"], second.embedding.vectors["clip_l"])
    other = run(toy_host, seed=5)
    assert not torch.equal(first.embedding.vectors["clip_l"], other.embedding.vectors["clip_l"])


@pytest.mark.slow
def test_the_global_random_state_plays_no_part(toy_host: ToyHost) -> None:
    torch.manual_seed(1)
    first = run(toy_host)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = run(toy_host)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.embedding.vectors["clip_l"], second.embedding.vectors["clip_l"])


@pytest.mark.parametrize("negative", quick_first(1, [False, True]))
@pytest.mark.parametrize("part", quick_first(3, ["Attention", "U-Net", "Transformer", "Attention + U-Net"]))
def test_both_sides_and_parts_improve_on_their_start(toy_host: ToyHost, part: str, negative: bool) -> None:
    kind = "Negative Prompt" if negative else "Prompt"
    result = run(toy_host, part=part, prompt_type=kind, initial_prompt="star", other_prompt="cat")
    assert result.checks[-1][1] > 0.3
    assert result.losses[-1] < 0.5 * result.losses[0]


@cache
def explained_by_the_poor_start() -> tuple[float, float]:
    """On the select set, and in the report."""
    result = run(ToyHost(), initial_prompt="star", learning_steps=1, rate=1e-9, measure="Full")
    assert result.fidelity is not None
    return result.checks[-1][1], result.fidelity.explained


QUICK = ("Adam",)
OTHERS = sorted(name for name, row in OPTIMIZERS.items() if row.package == "torch" and name not in QUICK)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_every_optimizer_improves_on_a_poor_start(toy_host: ToyHost, name: str) -> None:
    result = run(toy_host, optimizer=name, initial_prompt="star", measure="Full")
    assert result.stopped == "done"
    assert result.fidelity is not None
    checked, reported = explained_by_the_poor_start()
    assert max(explained for _, explained in result.checks) > checked
    assert result.fidelity.explained > reported


def test_a_plain_prompt_is_recognised_and_not_trained(toy_host: ToyHost) -> None:
    result = run(toy_host, text="red circle", tokens=3, measure="Full")
    assert result.stopped == "exact" and result.steps == 0
    assert torch.equal(result.embedding.vectors["clip_l"], toy_host.model.token_vectors("red circle")["clip_l"].float())
    assert result.fidelity is not None and result.fidelity.explained == pytest.approx(1)
    assert "N = 2 instead of 3" in result.notes[-1]


def test_a_plain_prompt_longer_than_the_embedding_is_trained(toy_host: ToyHost) -> None:
    assert run(toy_host, text="red circle", tokens=1, learning_steps=5).stopped == "done"


def test_the_best_by_the_select_set_is_kept(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out errors as scripted: the second check is the best, so its vectors are returned."""
    scripted = iter([1.0, 0.9, 0.2, 0.5, 0.7])  # the start, then four checks
    kept: list[torch.Tensor] = []

    def held_out(self: UNetObjective, vectors: dict[str, torch.Tensor]) -> float:
        kept.append(vectors["clip_l"].clone())
        return next(scripted)

    monkeypatch.setattr(UNetObjective, "held_out", held_out)
    result = run(toy_host, learning_steps=20, save_every=5)  # a snapshot is judged too
    torch.testing.assert_close(result.embedding.vectors["clip_l"], kept[2].float())
    assert [step for step, _ in result.checks] == [5, 10, 15, 20]


@pytest.mark.parametrize("part", quick_first(1, ["Attention", "U-Net"]))
@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({}, True),
        ({"tokens": 3}, True),
        ({"tokens": 1}, False),  # no room for the words
        ({"typed_weight": 1.2}, False),  # their weight would be typed too
        ({"use": "Alone", "templates": ""}, False),
    ],
    ids=str,
)
def test_words_that_do_better_among_others_are_kept(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, part: str, values: dict[str, Any], kept: bool
) -> None:
    """As if the words explained all there and what was trained nothing."""
    words = toy_host.model.token_vectors("red circle")["clip_l"].float()
    kinds: dict[str, Any] = {"Attention": AttentionObjective, "U-Net": UNetObjective}
    kind = kinds[part]
    real = kind.held_out_among_words

    def scripted(self: Any, vectors: Vectors) -> float | None:
        own = torch.equal(vectors["clip_l"][:2].float(), words)
        return None if real(self, vectors) is None else 0.0 if own else 1.0

    monkeypatch.setattr(kind, "held_out_among_words", scripted)
    result = run(toy_host, part=part, **{"templates": "{}\na {} star", "learning_steps": 25, **values})
    found = result.embedding.vectors["clip_l"]
    assert torch.equal(found, words) == kept  # with three vectors too: a third would move what follows
    assert any("were kept, one vector for each token" in note for note in result.notes) == kept


def test_words_are_not_kept_for_a_part_to_go_on_from(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be said of what another part has trained since."""
    errors = itertools.cycle([1.0, 0.0])  # of what was trained, and of the words
    monkeypatch.setattr(AttentionObjective, "held_out_among_words", lambda *_: next(errors))
    monkeypatch.setattr(UNetObjective, "held_out_among_words", lambda *_: None)
    templates = "a {} star\n{}"  # the sketch takes the first
    result = run(toy_host, part="Attention + U-Net", templates=templates, learning_steps=25)
    assert not any("words without weights do better" in note for note in result.notes)


def test_early_stop(toy_host: ToyHost) -> None:
    result = run(toy_host, rate=1e-9, early_stop=2, learning_steps=5000)
    assert result.stopped == "early stop"
    assert len(result.checks) == 2


def test_where_a_few_contexts_bring_no_more_all_of_them_are_trained_in(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_in = []
    real = AttentionObjective.fixed

    def fixed(self: AttentionObjective, generator: torch.Generator, *, sparing: bool) -> Any:
        trained_in.append(len(self.train))
        return real(self, generator, sparing=sparing)

    monkeypatch.setattr(AttentionObjective, "fixed", fixed)
    monkeypatch.setattr(AttentionObjective, "error_in", lambda *_: 1.0)  # no check sees progress
    templates = "\n".join("a " * number + "{} star" for number in range(32))
    result = run(toy_host, part="Attention", templates=templates, early_stop=1, learning_steps=100)
    assert trained_in == [1, 16, 32]  # the sketch, a few and all
    assert result.stopped == "early stop" and [step for step, _ in result.checks] == [10, 20, 30]


def diverging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the first run of the optimizer give NaN at its third step."""
    losses = 0
    real = UNetObjective.loss

    def loss(self: UNetObjective, vectors: Vectors, drawn: Any) -> torch.Tensor:
        nonlocal losses
        value = real(self, vectors, drawn)
        losses += value.requires_grad
        return value * math.nan if losses == SAMPLES + 3 else value

    monkeypatch.setattr(UNetObjective, "loss", loss)


@pytest.mark.parametrize("save_every", quick_first(1, [0, 1]))
def test_a_loss_that_is_not_finite_is_tried_again_at_half_the_rate(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, save_every: int
) -> None:
    made = spy(monkeypatch, descent, "make_optimizer")
    diverging(monkeypatch)
    result = run(toy_host, rate=0.2, learning_steps=120, initial_prompt="star", save_every=save_every)
    assert [rate for _, _, rate in made] == [0.2, 0.1]
    assert result.stopped == "done"
    assert torch.isfinite(result.embedding.vectors["clip_l"]).all()
    assert any("rate=0.2" in note and "not finite" in note for note in result.notes)


def test_diverging_at_the_last_step_is_told(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    diverging(monkeypatch)
    result = run(toy_host, learning_steps=3)
    assert (result.stopped, result.steps) == ("diverged", 3) and "not finite at step 3" in result.notes[-1]


def test_diverging_twice_keeps_the_best_and_says_why(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    real = UNetObjective.loss
    monkeypatch.setattr(
        UNetObjective, "loss", lambda s, v, d: real(s, v, d) * (math.nan if v["clip_l"].requires_grad else 1)
    )
    result = run(toy_host)
    assert result.stopped == "diverged"
    assert torch.equal(result.embedding.vectors["clip_l"], toy_host.model.token_vectors("red circle")["clip_l"].float())
    assert len([note for note in result.notes if "not finite" in note]) == 2


def test_a_second_run_has_its_scheduler_over_the_steps_that_are_left(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = spy(monkeypatch, descent, "make_scheduler")
    diverging(monkeypatch)
    run(toy_host, learning_steps=30, initial_prompt="star", save_every=1)
    assert [steps for _, _, steps in made] == [30, 27]


def stopped_at(step: int, host: ToyHost, *, save: bool, **values: Any) -> Estimate:
    """Stopped by the user when the preview of the step is asked for; it is noticed after the next step."""
    token = StopToken()
    listener = Listener(on_preview=lambda *_: token.stop(save=save))
    return estimate(settings(preview_every=step, learning_steps=500, **values), host, listener, stop=token)


def test_a_stop_that_saves_returns_what_there_is(toy_host: ToyHost) -> None:
    result = stopped_at(7, toy_host, save=True, measure="Full")
    assert (result.stopped, result.steps) == ("interrupted", 8)
    assert result.fidelity is None
    assert not toy_host.lent


def test_a_stop_keeps_what_was_reached_since_the_last_check(toy_host: ToyHost) -> None:
    result = stopped_at(20, toy_host, save=True, initial_prompt="star")
    start = toy_host.model.token_vectors("star")["clip_l"]
    assert [step for step, _ in result.checks] == [21] and result.steps == 21  # the first of its own accord comes later
    assert not torch.equal(result.embedding.vectors["clip_l"][:1], start.float())


def test_the_text_is_filled_with_padding_and_an_initial_prompt_with_zeros(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    padding = torch.arange(6, dtype=torch.float64)
    monkeypatch.setattr(toy_host.model, "padding_vectors", lambda: {"clip_l": padding})
    plain = toy_host.model.token_vectors("red circle")["clip_l"]
    start = starting_vectors(settings(tokens=3), toy_host.model)["clip_l"]
    assert torch.equal(start, torch.cat([plain, padding[None]]))
    start = starting_vectors(settings(tokens=3, initial_prompt="red circle"), toy_host.model)["clip_l"]
    assert torch.equal(start, torch.cat([plain, torch.zeros(1, 6)]))


def test_a_stop_that_drops_raises(toy_host: ToyHost) -> None:
    with pytest.raises(Interrupted, match="dropped"):
        stopped_at(7, toy_host, save=False)
    assert not toy_host.lent


def test_a_stop_before_training_has_nothing_to_save(toy_host: ToyHost) -> None:
    token = StopToken()
    token.stop(save=True)
    with pytest.raises(Interrupted, match="before there was anything"):
        estimate(settings(), toy_host, stop=token)


def test_a_sketch_is_there_to_save_while_the_rest_is_prepared(toy_host: ToyHost) -> None:
    token, prepared = StopToken(), []

    def listen(progress: Progress) -> None:
        if progress.phase == "prepare":
            prepared.append(progress.total)
            if prepared[0] < progress.total:
                token.stop(save=True)

    result = estimate(
        settings(part="Attention", learning_steps=500), toy_host, Listener(on_progress=listen), stop=token
    )
    assert result.stopped == "interrupted" and result.steps == SKETCH_STEPS
    assert prepared[0] < prepared[-1] / 4
    assert result.checks[-1][0] == SKETCH_STEPS and result.losses[-1] < result.losses[0]


def test_snapshots_come_every_n_steps(toy_host: ToyHost) -> None:
    seen: list[int] = []
    estimate(settings(save_every=25), toy_host, Listener(on_snapshot=lambda embedding, step: seen.append(step)))
    assert seen == [25, 50]


def test_progress_tells_phases_in_order(toy_host: ToyHost) -> None:
    seen: list[Progress] = []
    estimate(settings(measure="Full"), toy_host, Listener(on_progress=seen.append))
    phases = [p.phase for p in seen]
    assert phases == sorted(phases, key=["prepare", "train", "measure"].index)
    prepared = [p for p in seen if p.phase == "prepare"]
    evaluations, to_train_on, to_select_by = 6, 6, 3
    assert prepared[-1].done == prepared[-1].total == evaluations * (to_train_on + to_select_by)
    last = [p for p in seen if p.phase == "train"][-1]
    assert last.done == last.total == 60 and last.loss is not None and last.explained is not None


def test_provenance_is_json_and_keeps_secrets(toy_host: ToyHost) -> None:
    told = run(toy_host, learning_steps=5, measure="Full").embedding.provenance
    assert json.loads(json.dumps(told))["settings"]["text"] == "red (circle:1.8)"
    assert told["model"]["hash"] == "0123456789" and told["fidelity"]["protocol"] == "v2"
    private = run(toy_host, learning_steps=5, private=True).embedding.provenance
    assert "circle" not in json.dumps(private)


def test_the_model_has_its_say_on_settings(toy_host: ToyHost) -> None:
    with pytest.raises(SettingsError) as caught:
        run(toy_host, sampler="Eular", schedule="Karas", tokens=5, width=100)
    assert len(caught.value.problems) == 4
    assert "did you mean Euler" in str(caught.value) and "choose 96" in str(caught.value)


def test_a_template_is_one_context(toy_host: ToyHost) -> None:
    """An embedding among its words would be typed as one, while the teacher would have several."""
    with pytest.raises(SettingsError) as caught:
        run(toy_host, templates="{}\n[{}:blue:120] star\na star AND {}\n{}, a star:0.5\na (star:1.2), {}")
    assert [line.partition(" has a schedule, AND")[0] for line in caught.value.problems] == [
        "template '[{}:blue:120] star'",
        "template 'a star AND {}'",
        "template '{}, a star:0.5'",
    ]


def test_two_encoders_do_not_fit_into_a_pt(toy_host: ToyHost) -> None:
    toy_host.model.info = replace(toy_host.model.info, widths={"clip_l": 6, "clip_g": 8})
    with pytest.raises(SettingsError, match="format='pt' holds the vectors of one encoder"):
        run(toy_host, format="pt")


def test_tokens_from_the_initial_prompt(toy_host: ToyHost) -> None:
    result = run(toy_host, initial_prompt="a big red", token_source="Initial prompt", learning_steps=5)
    assert len(result.embedding.vectors["clip_l"]) == 3
    with pytest.raises(SettingsError, match="initial_prompt has 5 tokens"):
        run(toy_host, initial_prompt="a b c d e", token_source="Initial prompt")


def test_a_prompt_without_effect_is_refused_and_the_model_given_back(toy_host: ToyHost) -> None:
    with pytest.raises(PromptError):
        run(toy_host, text="(,)")
    assert not toy_host.lent


@pytest.mark.slow
def test_lbfgs_searches_along_its_lines(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step begins where the last one ended, which is not computed twice."""
    evaluations = spy(monkeypatch, AttentionObjective, "loss")
    result = run(toy_host, part="Attention", text="(blue:0.5) star", initial_prompt="cat", learning_steps=80)
    assert result.losses[-1] < 0.1 * result.losses[0]
    for losses in (result.losses[:SKETCH_STEPS], result.losses[SKETCH_STEPS:]):
        assert all(after <= before for before, after in itertools.pairwise(losses))
    assert len(evaluations) < 1.5 * result.steps


@pytest.mark.slow
def test_what_is_measured_anew_is_told_apart(toy_host: ToyHost) -> None:
    """The figures of a sketch, of the part behind it and of the part that refines do not compare."""
    heard: list[Progress] = []
    both = settings(part="Attention + U-Net", learning_steps=40)
    result = estimate(both, toy_host, Listener(on_progress=heard.append))
    behind = [(0, "Sketch"), (SKETCH_STEPS, "Attention"), (40, "U-Net")]
    assert result.stretches == behind
    drawn = {(progress.stretch, progress.done) for progress in heard if progress.loss is not None}
    for (start, name), (end, _) in zip(behind, [*behind[1:], (result.steps, "")], strict=True):
        assert (name, end) in drawn
        assert all(start < step <= end for stretch, step in drawn if stretch == name)
    assert {stretch for stretch, _ in drawn} == {"Sketch", "Attention", "U-Net"}


@pytest.mark.parametrize("part", ["Attention", "U-Net", "Transformer"])
def test_every_part_trains_in_coordinates_of_its_own(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    used = spy(monkeypatch, Preconditioned, "vectors")
    result = run(toy_host, part=part, learning_steps=30)
    assert len(used) >= result.steps
    assert len({id(preconditioned) for preconditioned, _ in used}) == (
        2 if part == "Attention" else 1
    )  # the sketch has its own


@pytest.fixture
def short_of_memory(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Where a step of the U-Net part runs out of memory: "plain", and "checkpointed"."""
    places, inside, real = {"plain"}, [], UNetObjective.loss

    @contextmanager
    def checkpointed() -> Iterator[None]:
        inside.append(True)
        yield
        inside.pop()

    def loss(objective: UNetObjective, *arguments: Any) -> torch.Tensor:
        found = real(objective, *arguments)
        if found.requires_grad and ("checkpointed" if inside else "plain") in places:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(toy_host.model, "checkpointed", checkpointed)
    monkeypatch.setattr(UNetObjective, "loss", loss)
    return places


@pytest.mark.slow
def test_training_goes_on_with_checkpoints_where_memory_runs_out(toy_host: ToyHost, short_of_memory: set[str]) -> None:
    result = run(toy_host)
    assert (result.stopped, result.steps, len(result.losses)) == ("done", 60, 60)
    assert any("out of memory at step 1: continued with less memory" in note for note in result.notes)
    short_of_memory.clear()
    wide = run(toy_host)
    assert torch.equal(result.embedding.vectors["clip_l"], wide.embedding.vectors["clip_l"])


def test_what_the_host_can_do_without_goes_where_checkpoints_are_no_help(
    toy_host: ToyHost, short_of_memory: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def release(*, for_good: bool = False) -> bool:
        asked.append(for_good)
        if for_good:
            short_of_memory.clear()
        return for_good

    short_of_memory.add("checkpointed")
    monkeypatch.setattr(toy_host.model, "release", release)
    result = run(toy_host, measure="Full")
    assert asked == [True, False]  # while training, and before measuring
    assert "out of memory at step 1: continued without what the host had kept for speed or precision" in result.notes


@pytest.mark.parametrize("steps", quick_first(1, [15, 60]))  # with a sketch before, and without
def test_templates_go_one_at_a_time_where_there_is_no_memory_for_more(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    real = toy_host.model.encode_vectors

    def encode_vectors(vectors: Vectors, templates: Sequence[str], **options: Any) -> list[Conditioning]:
        if len(templates) > 1 and vectors["clip_l"].requires_grad:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(vectors, templates, **options)

    values = {"part": "Attention", "templates": "{}\na {} star", "learning_steps": steps}
    monkeypatch.setattr(descent, "preconditioned", lambda space, *rest: space)  # whose samples follow the portions
    wide = run(toy_host, **values)
    monkeypatch.setattr(toy_host.model, "encode_vectors", encode_vectors)
    result = run(toy_host, **values)
    assert (result.stopped, result.steps) == ("done", steps)
    assert any("continued with less memory" in note for note in result.notes)
    # Not the vectors: rounding moves them along what changes no output.
    assert result.losses == pytest.approx(wide.losses, rel=1e-3)
    assert [error for _, error in result.checks] == pytest.approx([error for _, error in wide.checks], rel=1e-3)


@pytest.mark.parametrize("check", [1, 6])
def test_what_a_check_had_no_memory_for_is_trained_again(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, check: int
) -> None:
    """The last of its six too, after which there is no step to go on with."""
    real, checks = TransformerObjective.held_out, 0

    def held_out(objective: TransformerObjective, vectors: Vectors) -> float:
        nonlocal checks
        checks += 1
        if checks == check + 1:  # the start's comes first
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(objective, vectors)

    monkeypatch.setattr(TransformerObjective, "held_out", held_out)
    result = run(toy_host, part="Transformer")
    assert (result.stopped, result.steps, len(result.losses)) == ("done", 60, 60)
    assert [step for step, _ in result.checks] == [10, 20, 30, 40, 50, 60]
    assert any(f"out of memory at step {min(10 * check + 1, 60)}: continued" in note for note in result.notes)


def test_what_was_reached_is_kept_where_nothing_helps(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    real, losses = AttentionObjective.loss, []

    def loss(objective: AttentionObjective, *arguments: Any) -> torch.Tensor:
        found = real(objective, *arguments)
        losses.append(found)
        if len(losses) > 100:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(AttentionObjective, "loss", loss)
    result = run(toy_host, part="Attention", text="(blue:0.5) star", initial_prompt="cat", learning_steps=200)
    assert result.stopped == "out of memory" and len(losses) == 102  # once more with less
    assert any("the best vectors before were kept" in note for note in result.notes)


@pytest.mark.slow
def test_what_one_part_has_reached_is_kept_where_the_next_has_no_memory(
    toy_host: ToyHost, short_of_memory: set[str]
) -> None:
    short_of_memory.add("checkpointed")
    result = run(toy_host, part="Attention + U-Net")
    assert (result.stopped, result.steps) == ("out of memory", 60) and result.checks[-1][1] > 0.5
    assert "out of memory at step 61: the best vectors before were kept" in result.notes
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run(toy_host)
    assert not toy_host.lent


@pytest.mark.parametrize(
    ("error", "stopped"),
    quick_first(
        1,
        [(torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of memory"), (RuntimeError("CUDA error"), "failed")],
    ),
)
def test_what_one_part_has_reached_is_kept_where_the_next_cannot_begin(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, error: Exception, stopped: str
) -> None:
    def broken(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(UNetPreparation, "__init__", broken)
    result = run(toy_host, part="Attention + U-Net")
    assert (result.stopped, result.steps) == (stopped, 60)
    assert any("before the U-Net part: what was reached by then is kept" in note for note in result.notes)


@pytest.mark.parametrize("part", ["Attention", "U-Net"])
def test_a_model_that_gives_no_numbers_is_told(toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    real = toy_host.model.denoise
    monkeypatch.setattr(toy_host.model, "denoise", lambda *arguments: real(*arguments) * math.nan)
    with pytest.raises(ModelError, match=r"not finite numbers.*--no-half"):
        run(toy_host, part=part)


def test_a_text_encoder_that_gives_no_numbers_does_nothing_exactly(toy_host: ToyHost) -> None:
    toy_host.model.projection *= math.nan
    with pytest.raises(ModelError, match="not finite numbers"):
        run(toy_host, text="red circle", tokens=2)


@pytest.mark.parametrize(("name", "moved"), [("Adam", (0.9 * 1 + 2) / 1.9), ("LBFGS", 2.0)])
def test_vectors_are_an_average_where_each_step_draws_anew(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, name: str, moved: float
) -> None:
    """Of two steps of 1, in multiples of the first."""

    class Adding(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            loss = closure()
            for leaf in self.param_groups[0]["params"]:
                leaf.data += 1
            return loss

    monkeypatch.setattr(descent, "make_optimizer", lambda name, leaves, rate: Adding(list(leaves), lr=rate))
    seen: list[torch.Tensor] = []
    made = settings(optimizer=name, learning_steps=2, preview_every=1)
    estimate(made, toy_host, Listener(on_preview=lambda teacher, vectors, step: seen.append(vectors["clip_l"].float())))
    start = starting_vectors(made, toy_host.model)["clip_l"].float()
    torch.testing.assert_close(seen[1] - start, moved * (seen[0] - start), rtol=1e-2, atol=0)  # the norm is bounded


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The optimizers that are made, of which LBFGS does not move."""
    names: list[str] = []
    real = make_optimizer

    class Stuck(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            return closure()

    def make(name: str, leaves: Iterable[torch.Tensor], rate: float) -> torch.optim.Optimizer:
        names.append(name)
        return Stuck(list(leaves), rate) if name == "LBFGS" else real(name, leaves, rate)

    monkeypatch.setattr(descent, "make_optimizer", make)
    return names


def test_where_a_line_search_finds_nothing_adam_goes_on(toy_host: ToyHost, made: list[str]) -> None:
    result = run(toy_host, part="Attention", initial_prompt="star")
    assert made == ["LBFGS", "Adam"] * 2 and result.stopped == "done" and result.steps == 60
    assert any("LBFGS found no lower point at step 1: Adam went on" in note for note in result.notes)
    assert result.losses[-1] < 0.5 * result.losses[0]


def test_adam_too_has_a_second_try(toy_host: ToyHost, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = AttentionObjective.loss
    monkeypatch.setattr(
        AttentionObjective, "loss", lambda s, v, d: real(s, v, d) * (math.nan if made[-1:] == ["Adam"] else 1)
    )
    result = run(toy_host, part="Attention", learning_steps=15, initial_prompt="star")
    assert made == ["LBFGS", "Adam", "Adam"] and result.stopped == "diverged"
    assert len([note for note in result.notes if "not finite" in note]) == 2


@pytest.mark.parametrize("measure", ["Nothing", "Full"])
def test_the_embedding_is_handed_out_before_the_host_has_its_model_back(toy_host: ToyHost, measure: str) -> None:
    handed_out: list[tuple[Embedding, bool]] = []
    settings = Settings(text="(red:1.5) circle", name="it", tokens=2, learning_steps=3, measure=measure)
    result = estimate(
        settings, toy_host, Listener(on_trained=lambda embedding: handed_out.append((embedding, toy_host.lent)))
    )
    ((embedding, lent),) = handed_out
    assert lent and torch.equal(embedding.vectors["clip_l"], result.embedding.vectors["clip_l"])


@pytest.mark.parametrize("save", [True, False])
def test_a_stop_is_heard_while_texts_are_encoded(
    toy_host: ToyHost, monkeypatch: pytest.MonkeyPatch, save: bool
) -> None:
    encoded, encode, stop = [], toy_host.model.encode, StopToken()

    def slowly(prompt: str, **options: Any) -> Any:
        if "circle" in prompt:
            encoded.append(prompt)
            stop.stop(save=save)
        return encode(prompt, **options)

    monkeypatch.setattr(toy_host.model, "encode", slowly)
    settings = Settings(text="(red:1.5) circle", name="it", tokens=2, learning_steps=3)
    with pytest.raises(Interrupted, match="before there was anything to save"):
        estimate(settings, toy_host, stop=stop)
    assert len(encoded) == 1 and not toy_host.lent
