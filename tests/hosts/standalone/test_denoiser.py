from __future__ import annotations

import copy
from typing import Any

import pytest
from shaking import shaken

pytest.importorskip("diffusers", reason="the standalone host needs the package's 'app' extra")

import torch
from diffusers import UNet2DConditionModel
from suites import quick_first
from torch import Tensor, nn

from embedding_estimate.hosts.standalone.denoiser import Denoiser
from embedding_estimate.model.host import Conditioning, Prediction

POOLED = 32


def alphas_cumprod() -> Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


class Recorder(nn.Module):
    """Stands for a U-Net: keeps what it is called with and answers with what it is told to."""

    def __init__(self, answer: Any):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.answer = answer

    def forward(self, sample: Tensor, timestep: Tensor, **arguments: Any) -> tuple[Tensor]:
        self.called = {"sample": sample, "timestep": timestep, **arguments}
        return (self.answer(sample),)


@pytest.fixture(scope="module")
def unet() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shaken(0))
        module = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=48,
            attention_head_dim=8,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=POOLED + 6 * 8,
        )
    return module.requires_grad_(False).eval()


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(shaken(1))
    sigma = torch.tensor([5.0, 0.5, 1.3])[:batch]
    x = torch.randn((batch, 4, 8, 8), generator=generator) * (1 + sigma.view(-1, 1, 1, 1))
    context = torch.randn((1, 77, 48), generator=generator)
    sizes = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])
    vector = torch.cat([torch.randn((1, POOLED), generator=generator), sizes], 1)
    return x, sigma, Conditioning(context, vector)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_a_perfect_prediction_denoises_perfectly(prediction: Prediction) -> None:
    """With alpha^2 + s^2 = 1 and sigma = s / alpha: the U-Net sees alpha x = alpha x0 + s n, epsilon is n, and
    v is alpha n - s x0 (Salimans & Ho 2022, section 4)."""
    clean, noise, sigma = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0.05, 1.0, 12.0])
    level = sigma.view(-1, 1, 1, 1)
    alpha = (1 + level**2).rsqrt()
    answer = noise if prediction == "epsilon" else alpha * noise - alpha * level * clean
    unet = Recorder(lambda sample: answer)
    x = clean + level * noise
    denoised = Denoiser(unet, alphas_cumprod(), prediction)(x, sigma, Conditioning(torch.randn(1, 7, 5)))
    torch.testing.assert_close(denoised, clean, rtol=0, atol=2e-5)
    torch.testing.assert_close(unet.called["sample"], alpha * x)


def test_timesteps_are_the_models_own_and_linear_in_log_sigma_between_them() -> None:
    denoiser = Denoiser(Recorder(torch.zeros_like), alphas_cumprod(), "epsilon")
    sigmas = denoiser.sigmas
    own = torch.tensor([0, 1, 500, 998, 999])
    torch.testing.assert_close(denoiser.timestep(sigmas[own]), own.float(), rtol=0, atol=2e-3)
    between = (sigmas[400].log() * 0.75 + sigmas[401].log() * 0.25).exp()[None]
    torch.testing.assert_close(denoiser.timestep(between), torch.tensor([400.25]), rtol=0, atol=2e-3)
    outside = torch.stack([sigmas[0] / 2, sigmas[-1] * 2])
    torch.testing.assert_close(denoiser.timestep(outside), torch.tensor([0.0, 999.0]))


def test_sdxls_vector_is_split_and_one_conditioning_serves_the_batch() -> None:
    unet = Recorder(torch.zeros_like)
    x, sigma, conditioning = inputs(3)
    Denoiser(unet, alphas_cumprod(), "epsilon")(x, sigma, conditioning)
    added = unet.called["added_cond_kwargs"]
    assert conditioning.vector is not None
    torch.testing.assert_close(added["text_embeds"], conditioning.vector[:, :POOLED].expand(3, -1))
    torch.testing.assert_close(added["time_ids"], torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(3, -1))
    assert unet.called["encoder_hidden_states"].data_ptr() == conditioning.context.data_ptr()  # not copied
    Denoiser(unet, alphas_cumprod(), "epsilon")(x, sigma, Conditioning(conditioning.context))
    assert unet.called["added_cond_kwargs"] is None


@torch.no_grad()
def test_a_batch_of_conditionings_equals_one_for_all(unet: Any) -> None:
    denoiser = Denoiser(unet, alphas_cumprod(), "v")
    x, sigma, one = inputs(2)
    assert one.vector is not None
    each = Conditioning(one.context.repeat(2, 1, 1), one.vector.repeat(2, 1))
    torch.testing.assert_close(denoiser(x, sigma, each), denoiser(x, sigma, one))


def gradients(unet: Any, factor: float) -> list[Tensor]:
    """[denoised, gradients in context, vector and x, without the factor that the loss is multiplied by]"""
    x, sigma, conditioning = inputs()
    assert conditioning.vector is not None
    leaves = [value.clone().requires_grad_() for value in (conditioning.context, conditioning.vector, x)]
    denoised = Denoiser(unet, alphas_cumprod(), "epsilon")(leaves[2], sigma, Conditioning(leaves[0], leaves[1]))
    assert denoised.dtype == torch.float32
    found = torch.autograd.grad(denoised.square().mean() * factor, leaves)
    return [denoised.detach(), *(gradient / factor for gradient in found)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize("factor", quick_first(2, [1.0, 1e-12, 1e-6, 1e6]))
def test_half_precision_gradients_are_those_of_full_precision(
    unet: Any, dtype: torch.dtype, tolerance: float, factor: float
) -> None:
    """However small the loss: without scaling, 1e-6 leaves nothing of an fp16 gradient."""
    with torch.device("meta"):
        half = UNet2DConditionModel.from_config(unet.config)
    half.load_state_dict({key: value.to(dtype) for key, value in unet.state_dict().items()}, assign=True)
    for found, expected in zip(gradients(half.requires_grad_(False), factor), gradients(unet, 1.0), strict=True):
        assert float((found - expected).norm() / expected.norm()) < tolerance


def test_a_gradient_of_zero_stays_zero_in_fp16(unet: Any) -> None:
    half = copy.deepcopy(unet)
    half = nn.Module.to(half, torch.float16)
    x, sigma, conditioning = inputs()
    context = conditioning.context.clone().requires_grad_()
    denoised = Denoiser(half, alphas_cumprod(), "epsilon")(x, sigma, Conditioning(context, conditioning.vector))
    (gradient,) = torch.autograd.grad((denoised * 0).sum(), context)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_two_passes_of_different_size_do_not_mix_their_scales(unet: Any) -> None:
    half = nn.Module.to(copy.deepcopy(unet), torch.float16)
    x, sigma, conditioning = inputs()
    denoiser = Denoiser(half, alphas_cumprod(), "epsilon")

    def gradient(*weights: float) -> Tensor:
        context = conditioning.context.clone().requires_grad_()
        passes = [denoiser(x * (1 + i), sigma, Conditioning(context, conditioning.vector)) for i in range(2)]
        loss = torch.stack([w * d.square().mean() for w, d in zip(weights, passes, strict=True)]).sum()
        return torch.autograd.grad(loss, context)[0]

    torch.testing.assert_close(gradient(1, 1e-4), gradient(1, 0) + 1e-4 * gradient(0, 1), rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("level", [14.0, 1.0, 0.05])
def test_gradients_of_one_reach_the_inside_of_an_fp16_unet_unscaled(unet: Any, level: float) -> None:
    """So that what is added inside can be differentiated by, whatever the noise level."""
    x, _, conditioning = inputs(1)
    found = []
    for module in (unet, nn.Module.to(copy.deepcopy(unet), torch.float16)):
        leaves: list[Tensor] = []

        def add(_module: nn.Module, args: tuple[Tensor, ...], leaves: list[Tensor] = leaves) -> tuple[Tensor, ...]:
            leaves.append(torch.zeros_like(args[0], requires_grad=True))
            return (args[0] + leaves[0], *args[1:])

        handle = next(part for name, part in module.named_modules() if name.endswith("attn2.to_out.0"))
        handle = handle.register_forward_pre_hook(add)
        denoised = Denoiser(module, alphas_cumprod(), "epsilon")(x * level, torch.full((1,), level), conditioning)
        handle.remove()
        signs = torch.ones_like(denoised).index_fill_(3, torch.tensor([1, 4, 6]), -1.0)
        found.append(torch.autograd.grad(denoised, leaves, signs)[0].float())
    assert float((found[1] - found[0]).norm()) < 0.02 * float(found[0].norm())
