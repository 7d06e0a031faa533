"""What every host has to keep to where the U-Net reads text. Part of `contract.HostContract`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from shaking import shaken
from torch import Tensor

from embedding_estimate.model.host import BorrowedModel, Conditioning, Stage
from embedding_estimate.teaching import probes as probing
from embedding_estimate.teaching.probes import Probes, heads, probe
from embedding_estimate.teaching.sides import Side, States

PROMPT = "a (red:1.4) circle"
SIZE = 64  # pixels
DRAWS, AT_ONCE = 150, 25


def conditioning_of(model: BorrowedModel, prompt: str) -> Conditioning:
    return model.encode(prompt, evaluations=10, width=SIZE, height=SIZE)[0].parts[0][0]


def state(model: BorrowedModel, conditioning: Conditioning) -> States:
    side = SIZE // model.info.latent_scale
    generator = torch.Generator().manual_seed(shaken(0))
    x = 3 * torch.randn(1, model.info.latent_channels, side, side, generator=generator).to(model.device)
    sigma = torch.full((1,), 3.0, device=model.device)
    denoised = model.denoise(x, sigma, conditioning)
    none = torch.zeros(1, dtype=torch.long)
    return States(x, sigma, denoised, denoised, evaluation=none, seed=none)


def _moves(probes: Probes, here: Conditioning, there: Conditioning) -> Tensor:
    """What all readings of a state change by together, from one conditioning to the other: (AT_ONCE,)."""
    found = torch.zeros(AT_ONCE)
    for layers in probes.layers:
        moved = (layers.read(there.context) - layers.read(here.context))[0]  # (A, R), state after state
        found += moved.unflatten(1, (AT_ONCE, -1)).sum(dim=(0, 2)).cpu()
    if probes.vector is not None and here.vector is not None and there.vector is not None:
        found += (probes.vector @ (there.vector - here.vector)[0]).cpu()
    return found


class AttentionContract:
    """Needs the fixture `model`."""

    def test_text_is_read_where_it_says(self, model: BorrowedModel) -> None:
        """What the heads gather is softmax(q k' / sqrt(d)) v of its own queries, keys and values."""
        attentions = model.cross_attentions()
        assert len(attentions) >= 3
        conditioning = conditioning_of(model, PROMPT)
        queries: dict[int, Tensor] = {}
        gathered: dict[int, Tensor] = {}
        handles = []
        for index, each in enumerate(attentions):

            def see(_module: object, _args: object, output: Tensor, index: int = index) -> None:
                queries[index] = output

            def see_gathered(_module: object, args: Sequence[Tensor], index: int = index) -> None:
                gathered[index] = args[0]

            handles.append(each.to_q.register_forward_hook(see))
            handles.append(each.to_out.register_forward_pre_hook(see_gathered))
        with torch.no_grad():
            state(model, conditioning)
            for index, each in enumerate(attentions):
                q, k, v = (
                    heads(value.float(), each.heads) for value in (queries[index], *each.read(conditioning.context))
                )
                weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
                plain = (weights @ v).transpose(1, 2).flatten(2)
                torch.testing.assert_close(gathered[index].float(), plain, rtol=1e-3, atol=1e-4)
        for handle in handles:
            handle.remove()

    def test_readings_are_differentiable_in_the_context(self, model: BorrowedModel) -> None:
        context = conditioning_of(model, PROMPT).context.clone().requires_grad_()
        for each in model.cross_attentions():
            keys, values = each.read(context)
            assert keys.dtype == values.dtype == torch.float32 and keys.shape[:2] == context.shape[:2]
            (gradient,) = torch.autograd.grad(keys.square().sum() + values.square().sum(), context)
            assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0

    @pytest.mark.slow
    def test_all_rows_together_foresee_what_the_prediction_does(self, model: BorrowedModel) -> None:
        """Over random signs s, the mean of (s'J d)^2 is |J d|^2, which a small change of the context brings about."""
        conditioning = conditioning_of(model, PROMPT)
        with torch.no_grad():
            here = state(model, conditioning)
        side = Side(model, [Stage(0, ((conditioning, 1.0),))])
        generator = torch.Generator().manual_seed(shaken(1))

        def moved(value: Tensor) -> Tensor:
            return value + 0.03 * value.std() * torch.randn(value.shape, generator=generator).to(value)

        there = Conditioning(
            moved(conditioning.context), None if conditioning.vector is None else moved(conditioning.vector)
        )
        same = here[torch.zeros(AT_ONCE, dtype=torch.long)]  # with random signs of its own each
        foreseen = 0.0
        for _ in range(DRAWS // AT_ONCE):
            probes = probe(model, [(side, same)], rows=10**6, batch=AT_ONCE, generator=generator)
            with torch.no_grad():
                foreseen += float(_moves(probes, conditioning, there).square().sum()) * AT_ONCE / DRAWS
        with torch.no_grad():
            change = (model.denoise(here.x, here.sigma, there) - here.target) / here.sigma
        assert foreseen == pytest.approx(float(change.square().mean()), rel=0.4)

    def test_layers_are_read_together_as_each_is_alone(
        self, model: BorrowedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conditioning, nothing = (conditioning_of(model, text) for text in (PROMPT, ""))
        with torch.no_grad():
            here = state(model, conditioning)
        side = Side(model, [Stage(0, ((conditioning, 1.0),))])
        errors, sizes = [], []
        for most in (probing.TOGETHER, 2**12, 1):
            monkeypatch.setattr(probing, "TOGETHER", most)
            probes = probe(model, [(side, here)], rows=5, batch=1, generator=torch.Generator().manual_seed(shaken(1)))
            with torch.no_grad():
                torch.testing.assert_close(probes.read(conditioning)[0], probes.aim, rtol=1e-3, atol=1e-5)
                errors.append(float(probes.error(nothing)))
            sizes.append([len(layers.attentions) for layers in probes.layers])
            assert sum(sizes[-1]) == len(model.cross_attentions())
            assert all(layers.queries.numel() <= most or len(layers.attentions) == 1 for layers in probes.layers)
        shapes = {layers.queries.shape for layers in probes.layers}
        assert len(sizes[0]) == len(shapes) and sizes[2] == [1] * len(model.cross_attentions())
        assert errors == pytest.approx([errors[0]] * 3, rel=1e-3) and errors[0] > 0

    def test_checkpoints_change_no_gradient_and_nothing_of_them_stays(self, model: BorrowedModel) -> None:
        conditioning = conditioning_of(model, PROMPT)

        def gradient() -> Tensor:
            context = conditioning.context.clone().requires_grad_()
            found = state(model, Conditioning(context, conditioning.vector)).target
            return torch.autograd.grad(found.square().sum(), context)[0]

        plain = gradient()
        with model.checkpointed():
            torch.testing.assert_close(gradient(), plain, rtol=1e-4, atol=1e-5)
            saved: list[Tensor] = []
            with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
                gradient()
            inside = len(saved)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            gradient()
        assert len(saved) - inside > inside  # many more are kept without
