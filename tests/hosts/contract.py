"""What every host has to keep to. A host's own test inherits `HostContract` and provides the two fixtures."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hosts.attention_contract import AttentionContract
from shaking import shaken
from suites import quick_first
from torch import Tensor, nn

from embedding_estimate.errors import PromptError
from embedding_estimate.model.host import BorrowedModel, Conditioning, Host, Stage, Vectors
from embedding_estimate.objectives.prompts import check_text
from embedding_estimate.progress import Stopped
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

PLAIN = "a red circle on a blue square"
LONG = "w " * 80  # more than a chunk
EVALUATIONS = 10
SIZE = 64  # pixels, the least that every U-Net can halve: the rules are the same at any size, and the tests are quicker


def encode(model: BorrowedModel, prompt: str, **options: Any) -> list[Stage]:
    return model.encode(prompt, evaluations=EVALUATIONS, width=SIZE, height=SIZE, **options)


def only(stages: Sequence[Stage]) -> Conditioning:
    """The conditioning of a prompt without schedule and `AND`."""
    (stage,) = stages
    ((conditioning, weight),) = stage.parts
    assert weight == 1
    return conditioning


def encode_vectors(model: BorrowedModel, vectors: Vectors, template: str = "{}", **options: Any) -> Conditioning:
    return model.encode_vectors(vectors, [template], width=SIZE, height=SIZE, **options)[0]


def latent(model: BorrowedModel, batch: int) -> Tensor:
    side = SIZE // model.info.latent_scale
    shape = (batch, model.info.latent_channels, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(shaken(0))).to(model.device)


def sample(model: BorrowedModel, conditioning: Conditioning, seeds: Sequence[int], **options: Any) -> Tensor:
    options = {"sampler": "Euler", "schedule": "Karras", "steps": 3, **options}
    denoise = options.pop("denoise", lambda x, sigma, evaluation: model.denoise(x, sigma, conditioning))
    return model.sample(denoise, seeds=seeds, width=SIZE, height=SIZE, **options)


def equal(ours: Conditioning, theirs: Conditioning, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(ours.context, theirs.context, rtol=tolerance, atol=tolerance)
    assert (ours.vector is None) == (theirs.vector is None)
    if ours.vector is not None and theirs.vector is not None:
        torch.testing.assert_close(ours.vector, theirs.vector, rtol=tolerance, atol=tolerance)


def fingerprint(modules: Sequence[nn.Module]) -> list[Any]:
    """Everything that a borrower may leave behind: values, places, gradients, modes, hooks and replaced attributes."""
    found: list[Any] = []
    for root in modules:
        for name, value in [*root.named_parameters(), *root.named_buffers()]:
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            state = (value.dtype, value.device, value.requires_grad, value.grad is None, value.data_ptr())
            found.append((name, hashlib.sha256(content).hexdigest(), *state))
        for name, part in root.named_modules():
            hooks = {key: list(value) for key, value in vars(part).items() if "_hooks" in key and value is not None}
            own = {key: value if isinstance(value, torch.device) else id(value) for key, value in vars(part).items()}
            found.append((name, part.training, hooks, own))
    return found


def random_states() -> list[Any]:
    numpy = np.random.get_state()
    devices = [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else []
    return [random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist(), devices]


def rough_job(model: BorrowedModel, modules: Sequence[nn.Module]) -> None:
    """Trains for a step and leaves behind all that a job might."""
    vectors = {key: value.clone().requires_grad_() for key, value in model.token_vectors(PLAIN).items()}
    conditioning = encode_vectors(model, vectors)
    x = latent(model, 1)
    model.denoise(x, torch.ones(1, device=model.device), conditioning).square().mean().backward()
    for module in modules:
        part = next(part for part in module.modules() if not list(part.children()))
        part.register_forward_pre_hook(lambda _module, _arguments: None)
        part.register_forward_hook(lambda _module, _arguments, _output: None)
        part.forward = part.forward
        module.train().requires_grad_(True)
    random.random(), np.random.rand(), torch.rand(1, device=model.device), torch.rand(1)


class HostContract(AttentionContract):
    """Provide `host` (a host with a model loaded) and `modules` (all that it runs on)."""

    @pytest.fixture
    def host(self) -> Host:
        raise NotImplementedError

    @pytest.fixture
    def modules(self, host: Host) -> Sequence[nn.Module]:
        raise NotImplementedError

    @pytest.fixture
    def model(self, host: Host) -> Iterator[BorrowedModel]:
        with host.borrow() as model:
            yield model

    @pytest.mark.parametrize("text", quick_first(2, ["()", "[::0.5] AND", "[|]", "[:1]", "[::1]", "[()|]"]))
    def test_a_prompt_that_is_empty_at_every_step_is_refused(self, model: BorrowedModel, text: str) -> None:
        teacher = Teacher(model, Task(text, False, ("",), SIZE, SIZE))
        with pytest.raises(PromptError, match=r"does what the empty prompt does|no alternative may be empty"):
            check_text(teacher, Trajectory("Euler", "Karras", EVALUATIONS, 7.0))

    # what the model says of itself

    def test_info_is_true(self, model: BorrowedModel) -> None:
        info = model.info
        assert info.family in ("sd1", "sd2", "sdxl") and info.prediction in ("epsilon", "v")
        assert {key: table.shape[1] for key, table in model.vocabulary().items()} == dict(info.widths)
        assert set(info.widths) == ({"clip_l", "clip_g"} if info.family == "sdxl" else set(info.widths))
        assert info.default_size % info.latent_scale == 0
        assert info.clip_skip >= 1
        assert info.emphasis in ("Original", "No norm", "Ignore", "None")
        assert "Euler" in model.samplers and "Karras" in model.schedules

    def test_lends_it_frozen_and_in_eval_mode(self, model: BorrowedModel, modules: Sequence[nn.Module]) -> None:
        for module in modules:
            assert not any(parameter.requires_grad for parameter in module.parameters())
            assert not any(part.training for part in module.modules())

    # prompts

    @pytest.mark.parametrize("prompt", ["", PLAIN, f"({PLAIN}:1.4)", ", ".join([PLAIN] * 30)])
    def test_a_prompts_conditioning_has_the_shapes_of_info(self, model: BorrowedModel, prompt: str) -> None:
        conditioning = only(encode(model, prompt))
        rows = model.info.chunk_tokens + 2
        assert conditioning.context.shape[0] == 1 and conditioning.context.shape[1] % rows == 0
        assert conditioning.context.shape[1] > rows or prompt.count(",") == 0
        assert not conditioning.context.requires_grad
        assert (conditioning.vector is not None) == (model.info.family == "sdxl")
        assert torch.isfinite(conditioning.context).all()

    def test_emphasis_matters(self, model: BorrowedModel) -> None:
        plain, weighted = only(encode(model, PLAIN)), only(encode(model, f"({PLAIN}:1.4)"))
        assert not torch.allclose(plain.context, weighted.context)

    def test_without_weights_the_same_words_are_left(self, model: BorrowedModel) -> None:
        bare = encode(model, f"(red:1.5) [{PLAIN}], ((large))", weights=False)
        equal(only(bare), only(encode(model, f"(red:1.0) {PLAIN}, large")), tolerance=1e-4)

    def test_padding_is_what_stands_behind_a_prompt(self, model: BorrowedModel) -> None:
        plain, padding = model.token_vectors(PLAIN), model.padding_vectors()
        assert {key: len(value) for key, value in padding.items()} == dict(model.info.widths)
        longer = {key: torch.cat([plain[key], padding[key].expand(3, -1)]) for key in plain}
        if model.info.family == "sd1":  # the others put an end mark before their padding
            equal(encode_vectors(model, longer), only(encode(model, PLAIN)), tolerance=1e-5)

    def test_stages_come_in_order_and_reach_the_end(self, model: BorrowedModel) -> None:
        stages = encode(model, "a [red:blue:0.5] circle")
        assert [stage.until for stage in stages] == sorted({stage.until for stage in stages})
        assert len(stages) == 2 and stages[-1].until >= EVALUATIONS - 1
        assert 0 < stages[0].until < EVALUATIONS - 1
        equal(stages[0].parts[0][0], only(encode(model, "a red circle")), 1e-5)
        equal(stages[1].parts[0][0], only(encode(model, "a blue circle")), 1e-5)

    def test_and_gives_parts_with_weights(self, model: BorrowedModel) -> None:
        (stage,) = encode(model, "a red circle AND a blue square :0.5")
        assert [weight for _, weight in stage.parts] == [1.0, 0.5]
        equal(stage.parts[0][0], only(encode(model, "a red circle")), 1e-5)

    # vectors

    def test_a_prompts_own_token_vectors_are_the_prompt(self, model: BorrowedModel) -> None:
        equal(encode_vectors(model, model.token_vectors(PLAIN)), only(encode(model, PLAIN)), 1e-5)

    def test_also_inside_a_template_and_with_a_weight(self, model: BorrowedModel) -> None:
        vectors = model.token_vectors("red circle")
        equal(encode_vectors(model, vectors, "a {} here"), only(encode(model, "a red circle here")), 1e-5)
        equal(encode_vectors(model, vectors, "a ({}:1.3)"), only(encode(model, "a (red circle:1.3)")), 1e-5)

    def test_private_characters_in_a_template_are_no_slot(self, model: BorrowedModel) -> None:
        """Icons of some fonts are such characters."""
        vectors, icons = model.token_vectors("red circle"), "\ue000 \U000f0000"
        equal(encode_vectors(model, vectors, f"{icons} {{}}"), only(encode(model, f"{icons} red circle")), 1e-5)

    @pytest.mark.parametrize(
        "templates",
        [["{}", "a {} here", "{}"], ["{}", "a ({}:1.3)"], ["{}", LONG + "{}"], [LONG + "{}", LONG + "a {}"]],
        ids=["short", "weighted", "short and long", "long"],
    )
    def test_templates_together_are_what_each_is_alone(self, model: BorrowedModel, templates: list[str]) -> None:
        """Also where one has a weight, of which a batch would make another mean, or fills more chunks."""
        vectors = {key: value.clone().requires_grad_() for key, value in model.token_vectors("red circle").items()}
        together = model.encode_vectors(vectors, templates, width=SIZE, height=SIZE)
        alone = [encode_vectors(model, vectors, template) for template in templates]
        for one, other in zip(together, alone, strict=True):
            equal(one, other, 1e-5)
        leaves = list(vectors.values())
        gradients = [
            torch.autograd.grad(
                sum(part.sin().sum() for each in found for part in (each.context, each.vector) if part is not None),
                leaves,
            )
            for found in (together, alone)
        ]
        for one, other in zip(*gradients, strict=True):
            assert (one - other).norm() < 1e-4 * other.norm()

    @pytest.mark.parametrize("template", ["({0:1}:1.4) {1:3}", "a {1:3}, ({0:1}:1.4) here", LONG + "({0:1}:1.4) {1:3}"])
    def test_some_of_the_vectors_stand_where_their_rows_are_named(self, model: BorrowedModel, template: str) -> None:
        vectors = {
            key: value.clone().requires_grad_() for key, value in model.token_vectors("red large circle").items()
        }
        found = encode_vectors(model, vectors, template)
        equal(found, only(encode(model, template.replace("{0:1}", "red").replace("{1:3}", "large circle"))), 1e-5)
        gradients = torch.autograd.grad(found.context.sin().sum(), list(vectors.values()), allow_unused=True)
        for gradient in gradients:
            assert gradient is None or (gradient.norm(dim=1) > 0).all()
        assert gradients[0] is not None

    def test_parts_together_have_the_gradient_of_the_whole(self, model: BorrowedModel) -> None:
        """Also where templates with other parts of the vectors stand beside it."""
        vectors = {
            key: value.clone().requires_grad_() for key, value in model.token_vectors("red large circle").items()
        }
        templates = ["a {} here", "a {0:1} {1:3} here", "a ({0:2}:1.4) {2:3}", "{1:2}"]
        found = model.encode_vectors(vectors, templates, width=SIZE, height=SIZE)
        for one, template in zip(found, templates, strict=True):
            equal(one, encode_vectors(model, vectors, template), 1e-5)
        equal(found[0], found[1], 1e-5)
        whole, parts = (
            torch.autograd.grad(one.context.sin().sum(), list(vectors.values()), retain_graph=True)
            for one in found[:2]  # which may share a graph
        )
        for one, other in zip(whole, parts, strict=True):
            assert (one - other).norm() < 1e-4 * other.norm()

    @pytest.mark.parametrize(
        ("text", "weights"),
        [
            ("(red:1.5) [large], circle", [1.5, 1 / 1.1, 1, 1]),
            (LONG + "(red:1.5)", [1.0] * 80 + [1.5]),
            ("", []),
        ],
        ids=["mixed", "long", "empty"],
    )
    def test_each_token_has_the_weight_that_its_row_is_scaled_by(
        self, model: BorrowedModel, text: str, weights: list[float]
    ) -> None:
        assert model.token_weights(text) == pytest.approx(weights)
        assert {len(rows) for rows in model.token_vectors(text).values()} == {len(weights)}

    def test_typed_with_the_weights_of_its_tokens_a_prompt_is_itself(self, model: BorrowedModel) -> None:
        text = "a (red:1.5) circle, (large:0.6)"
        weights = model.token_weights(text)
        template = " ".join(f"({{{place}:{place + 1}}}:{weight})" for place, weight in enumerate(weights))
        equal(encode_vectors(model, model.token_vectors(text), template), only(encode(model, text)), 1e-5)

    def test_modes_are_ways_to_apply_weights(self, model: BorrowedModel) -> None:
        vectors = model.token_vectors("red circle")
        own = encode_vectors(model, vectors, "a ({}:1.3)")
        found = {}
        for mode in model.emphasis_modes:
            with model.mode(mode):
                found[mode] = encode_vectors(model, vectors, "a ({}:1.3)")
                equal(found[mode], only(encode(model, "a (red circle:1.3)")), 1e-5)
        equal(encode_vectors(model, vectors, "a ({}:1.3)"), own)
        if found:
            equal(found[model.info.emphasis], own)
            assert not torch.allclose(found["Original"].context, found["No norm"].context)

    def test_token_vectors_are_rows_of_the_vocabulary(self, model: BorrowedModel) -> None:
        key = next(iter(model.info.widths))
        ids, vectors = model.token_ids(PLAIN), model.token_vectors(f"({PLAIN}:1.4)")
        assert set(vectors) == set(model.info.widths)
        torch.testing.assert_close(vectors[key], model.vocabulary()[key][ids].to(vectors[key]))

    def test_the_conditioning_is_differentiable_in_the_vectors(self, model: BorrowedModel) -> None:
        vectors = {key: value.clone().requires_grad_() for key, value in model.token_vectors(PLAIN).items()}
        weights = torch.randn_like(encode_vectors(model, vectors).context)

        def loss(step: float, direction: Vectors) -> Tensor:
            moved = {key: value + step * direction[key] for key, value in vectors.items()}
            conditioning = encode_vectors(model, moved)
            total = (conditioning.context * weights).sum()
            return total if conditioning.vector is None else total + conditioning.vector.sum()

        generator = torch.Generator().manual_seed(shaken(0))
        direction = {
            key: torch.randn(value.shape, generator=generator).to(value) * value.detach().std()
            for key, value in vectors.items()
        }
        found = torch.autograd.grad(loss(0, direction), list(vectors.values()))
        slope = sum(float((g * d).sum()) for g, d in zip(found, direction.values(), strict=True))
        with torch.no_grad():
            usual = sum(float(g.square().sum() * value.var()) for g, value in zip(found, vectors.values(), strict=True))
            measured = float(loss(0.01, direction) - loss(-0.01, direction)) / 0.02
        assert abs(slope - measured) < 0.005 * usual**0.5  # not of the slope: one direction in fifty is almost level

    # the U-Net

    def test_one_conditioning_serves_the_batch(self, model: BorrowedModel) -> None:
        conditioning = only(encode(model, PLAIN))
        vector = None if conditioning.vector is None else conditioning.vector.repeat(2, 1)
        x, sigma = latent(model, 2) * 2, torch.tensor([1.0, 3.0], device=model.device)
        denoised = model.denoise(x, sigma, conditioning)
        assert denoised.shape == x.shape and denoised.dtype == torch.float32
        each = model.denoise(x, sigma, Conditioning(conditioning.context.repeat(2, 1, 1), vector))
        torch.testing.assert_close(denoised, each, rtol=1e-4, atol=1e-4)

    def test_little_noise_is_hardly_touched_and_the_levels_differ(self, model: BorrowedModel) -> None:
        conditioning, x = only(encode(model, PLAIN)), latent(model, 1)
        denoised = [model.denoise(x, torch.full((1,), s, device=model.device), conditioning) for s in (0.03, 3.0)]
        assert float((denoised[0] - x).square().mean()) < 0.1 * float((denoised[1] - x).square().mean())

    def test_denoised_is_differentiable_in_the_conditioning(self, model: BorrowedModel) -> None:
        conditioning = only(encode(model, PLAIN))
        inputs = [conditioning.context.clone().requires_grad_()]
        if conditioning.vector is not None:
            inputs.append(conditioning.vector.clone().requires_grad_())
        generator = torch.Generator().manual_seed(shaken(0))
        directions = [torch.randn(value.shape, generator=generator).to(value) for value in inputs]
        x, sigma = 3 * latent(model, 2), torch.full((2,), 3.0, device=model.device)
        weights = torch.randn(x.shape, generator=generator).to(x)

        def loss(step: float) -> Tensor:
            moved = [value + step * direction for value, direction in zip(inputs, directions, strict=True)]
            return (model.denoise(x, sigma, Conditioning(*moved)) * weights).sum()

        found = torch.autograd.grad(loss(0), inputs)
        slope = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))
        usual = sum(float(g.square().sum()) for g in found) ** 0.5
        with torch.no_grad():
            measured = float(loss(0.02) - loss(-0.02)) / 0.04
        assert abs(slope - measured) < 0.02 * usual

    # sampling

    def test_sampling_is_deterministic_and_a_seed_does_not_see_its_neighbours(self, model: BorrowedModel) -> None:
        conditioning = only(encode(model, PLAIN))
        before = random_states()
        for sampler in ("Euler", "DPM++ SDE"):
            together = sample(model, conditioning, [1, 2], sampler=sampler)
            assert not together.requires_grad
            torch.testing.assert_close(sample(model, conditioning, [1, 2], sampler=sampler), together, rtol=0, atol=0)
            alone = sample(model, conditioning, [2], sampler=sampler)
            torch.testing.assert_close(alone, together[1:], rtol=1e-3, atol=1e-3)
        assert random_states() == before

    @pytest.mark.slow
    def test_every_name_of_a_sampler_and_a_schedule_is_taken(self, model: BorrowedModel) -> None:
        conditioning = only(encode(model, PLAIN))
        for sampler in model.samplers:
            assert sample(model, conditioning, [1], sampler=sampler).isfinite().all(), sampler
        for schedule in model.schedules:
            assert sample(model, conditioning, [1], schedule=schedule).isfinite().all(), schedule

    def test_every_evaluation_is_asked_for_in_k_diffusions_form(self, model: BorrowedModel) -> None:
        conditioning = only(encode(model, PLAIN))
        seen: list[tuple[Tensor, Tensor, int]] = []

        def denoise(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
            seen.append((x.clone(), sigma.clone(), evaluation))
            return model.denoise(x, sigma, conditioning)

        sample(model, conditioning, [1, 2], steps=4, denoise=denoise)
        assert [evaluation for *_, evaluation in seen] == list(range(model.evaluations("Euler", 4)))
        sigmas = [float(sigma[0]) for _, sigma, _ in seen]
        assert sigmas == sorted(sigmas, reverse=True)
        x, sigma, _ = seen[0]
        assert x.shape == latent(model, 2).shape and sigma.shape == (2,)
        assert float(x.std()) == pytest.approx(sigmas[0], rel=0.2)  # sigma_max times unit noise

    def test_second_order_samplers_count_two_evaluations_per_step(self, model: BorrowedModel) -> None:
        assert model.evaluations("Euler", 20) == 20
        assert model.evaluations("DPM++ SDE", 20) == 40

    def test_decodes_to_pictures(self, model: BorrowedModel) -> None:
        pictures = model.decode(latent(model, 2))
        assert pictures.shape == (2, 3, SIZE, SIZE)
        assert pictures.dtype == torch.float32 and pictures.device.type == "cpu"
        assert float(pictures.min()) >= 0 and float(pictures.max()) <= 1

    # borrowing

    @pytest.mark.parametrize("fails", [False, True])
    def test_the_model_goes_back_as_it_came(self, host: Host, modules: Sequence[nn.Module], fails: bool) -> None:
        def picture() -> Tensor:
            with host.borrow() as model:
                return model.decode(sample(model, only(encode(model, PLAIN)), [1], sampler="DPM++ SDE"))

        for module in modules:  # a state that nobody would guess
            module.train()
            next(module.parameters()).requires_grad_(False)
            next(part for part in module.modules() if not list(part.children())).eval()
        first = picture()
        before, states = fingerprint(modules), random_states()
        if fails:
            with pytest.raises(RuntimeError, match="in the middle"), host.borrow() as model:
                rough_job(model, modules)
                raise RuntimeError("in the middle")
        else:
            with host.borrow() as model:
                rough_job(model, modules)
        assert fingerprint(modules) == before
        assert random_states() == states
        assert torch.equal(picture(), first)

    def test_is_lent_to_one_at_a_time(self, host: Host) -> None:
        order: list[str] = []

        def second() -> None:
            with host.borrow():
                order.append("second")

        thread = threading.Thread(target=second)
        with host.borrow():
            thread.start()
            thread.join(0.1)
            order.append("first")
        thread.join(10)
        assert order == ["first", "second"]

    def test_who_waits_for_the_model_may_be_told_to_stop(self, host: Host) -> None:
        def stop() -> None:
            raise Stopped

        with host.borrow(), pytest.raises(Stopped), host.borrow(stop):
            pass
        with host.borrow() as model:  # and nobody has it
            assert model.token_ids(PLAIN)
