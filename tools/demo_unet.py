"""The demo model's U-Net and its training: noise prediction on latents, as SD1 was trained."""

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from demo_captions import phrases
from demo_checkpoint import Checkpoint, Progress, learning_rate
from demo_text import WIDTH, CaptionCoder
from demo_vae import draw_latents, random_scenes
from demo_world import Palette, Scene
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.nn import functional
from transformers import CLIPTextModel

SCENES = 24_000
BATCH = 32
WORKERS = 2  # threads, each with half of the batch: many small operations do not share cores well
FIRST_RATE, LATER_RATE = 8e-4, 3e-4  # peaks of the learning rate
AVERAGING = 0.999  # decay of the moving average of the weights
DROPPED_CAPTIONS = 0.1  # for classifier-free guidance
HIDDEN_ENDS = 0.3  # share of captions whose end tokens the U-Net may not look at
LARGEST_WEIGHT = 100.0
NOISE_OFFSET = 0.1  # standard deviation of what is added to a whole channel of the noise ...
OFFSET_STEPS = 0.4  # ... in this share of the first cycle
TIMES = 1000


def new_scheduler() -> PNDMScheduler:
    """SD1's noise schedule and configuration."""
    scheduler = PNDMScheduler(
        num_train_timesteps=TIMES,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
    scheduler.register_to_config(clip_sample=False)  # DDIM made from this configuration would clip latents
    return scheduler


def new_unet() -> UNet2DConditionModel:
    """SD1's U-Net with two resolutions, both with cross-attention."""
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(64, 128),
        layers_per_block=1,
        attention_head_dim=4,  # the number of heads, as diffusers reads SD1's configuration
        cross_attention_dim=WIDTH,
        norm_num_groups=8,  # SD1 too has about ten channels in a group; fewer lose the background
    )


def train_unet(
    vae: AutoencoderKL,
    encoder: CLIPTextModel,
    coder: CaptionCoder,
    palette: Palette,
    cycles: list[int],
    seed: int,
    checkpoint: Checkpoint,
    latents_file: Path,
) -> UNet2DConditionModel:
    """Train on captions of the frozen text encoder; returns the moving average of the weights.

    Args:
        cycles: steps in each cycle of the learning rate (Loshchilov & Hutter, "SGDR", 2017); every
            cycle ends in a usable model. All but the last learn mostly at high noise, the last one
            evenly.
    """
    torch.manual_seed(seed)
    steps = sum(cycles)
    unet = new_unet().to(memory_format=torch.channels_last)
    unet.set_attn_processor(AttnProcessor())  # the fused attention is slow backwards on a CPU
    average = copy.deepcopy(unet).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(unet.parameters(), betas=(0.9, 0.99), weight_decay=1e-2)
    first = checkpoint.restore(model=unet, average=average, optimizer=optimizer)
    if first >= steps:
        return average
    scenes, latents = _training_latents(vae, palette, seed, latents_file)
    alphas = new_scheduler().alphas_cumprod  # (TIMES,)
    progress = Progress("unet", steps)
    workers = ThreadPoolExecutor(WORKERS, initializer=torch.set_num_threads, initargs=(1,))
    for step in range(first, steps):
        rng = np.random.default_rng([seed, 4, step])
        torch.manual_seed(seed * 1_000_003 + step)
        chosen = rng.integers(len(scenes), size=BATCH)
        clean = latents[torch.from_numpy(chosen)].float()  # (B, 4, 16, 16)
        tokens, visible = _captions(coder, [scenes[index] for index in chosen], rng)
        noise = _noise(clean.shape, NOISE_OFFSET if step < OFFSET_STEPS * cycles[0] else 0.0)
        batch = (tokens, visible, clean, noise, _times(len(clean), towards_noise=step < steps - cycles[-1]))
        shares = zip(*(tensor.chunk(WORKERS) for tensor in batch), strict=True)
        results = list(workers.map(lambda share: _gradients(unet, encoder, alphas, *share), shares))
        for weight, *gradients in zip(unet.parameters(), *(gradients for _, gradients in results), strict=True):
            weight.grad = torch.stack(gradients).mean(0)
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate_in_cycles(step, cycles)
        optimizer.step()
        _follow(average, unet, min(AVERAGING, (1 + step) / (10 + step)))
        progress.report(step, loss=sum(loss for loss, _ in results) / WORKERS)
        checkpoint.save_now_and_then(step + 1, last=step + 1 == steps, model=unet, average=average, optimizer=optimizer)
    return average


def rate_in_cycles(step: int, cycles: list[int]) -> float:
    """The learning rate of a step when it warms up and falls once in every cycle."""
    peak = FIRST_RATE
    for length in cycles:
        if step < length:
            return learning_rate(step, length, peak)
        step, peak = step - length, LATER_RATE
    raise ValueError("the step lies behind the last cycle")


def _captions(coder: CaptionCoder, scenes: list[Scene], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Fresh captions: token ids and which of their rows the U-Net may look at, both (B, 77).

    The end tokens know the whole caption. Hiding them now and then makes the U-Net read the words'
    own rows too, which is what emphasis and learned embeddings act on.
    """
    tokens, visible = [], []
    for scene in scenes:
        dropped = rng.random() < DROPPED_CAPTIONS
        ids, _, end = coder.encode([] if dropped else list(phrases(scene, rng)))
        rows = np.ones(len(ids), dtype=bool)
        if not dropped and rng.random() < HIDDEN_ENDS:
            rows[end:] = False
        tokens.append(ids)
        visible.append(rows)
    return torch.from_numpy(np.stack(tokens)), torch.from_numpy(np.stack(visible))


def _noise(shape: torch.Size, offset: float) -> torch.Tensor:
    """Gaussian noise of a shape (B, C, H, W), with an offset of some spread for every channel.

    A channel's mean hardly drowns in independent noise, so the U-Net would learn to read the
    background off the noised picture and not off the prompt; the offset hides it ("offset noise",
    Guttenberg, 2023). Later the offset must go: guidance needs an unconditional prediction that
    does see the background, or it overshoots.
    """
    return torch.randn(shape) + offset * torch.randn(*shape[:2], 1, 1)


def _times(count: int, towards_noise: bool) -> torch.Tensor:
    """Times, (count,), even or with a density that grows linearly.

    Prompts matter most at high noise, shapes and edges are decided later. One time comes from each
    of count equally likely parts: less variance than independent draws.
    """
    part = (torch.randperm(count) + torch.rand(count)) / count
    return ((part.sqrt() if towards_noise else part) * TIMES).long().clamp(max=TIMES - 1)


def _gradients(
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    alphas: torch.Tensor,
    tokens: torch.Tensor,
    visible: torch.Tensor,
    clean: torch.Tensor,
    noise: torch.Tensor,
    times: torch.Tensor,
) -> tuple[float, tuple[torch.Tensor, ...]]:
    """The loss on a share of a batch and its gradients by the U-Net's parameters."""
    alpha = alphas[times]  # (B,)
    signal, sigma = alpha.sqrt().view(-1, 1, 1, 1), (1 - alpha).sqrt().view(-1, 1, 1, 1)
    noised = (signal * clean + sigma * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            context = encoder(tokens).last_hidden_state  # (B, 77, 96)
        predicted = unet(noised, times, context, encoder_attention_mask=visible).sample
    error = functional.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))  # (B,)
    loss = (error * loss_weight(alpha)).mean()
    return loss.item(), torch.autograd.grad(loss, list(unet.parameters()))


def loss_weight(alpha: torch.Tensor) -> torch.Tensor:
    """Weight of the noise error at a cumulative alpha: 1 / alpha, up to a limit.

    That is the loss of velocity prediction (Salimans & Ho, "Progressive Distillation", 2022). The
    plain noise error hardly feels a wrong background: at high noise, where the background is
    decided, it shows with the weight alpha only.
    """
    return (1 / alpha).clamp(max=LARGEST_WEIGHT)


@torch.no_grad()
def _follow(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Move the average towards the model."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def _training_latents(vae: AutoencoderKL, palette: Palette, seed: int, file: Path) -> tuple[list[Scene], torch.Tensor]:
    """Scenes and scaled latents (SCENES, 4, 16, 16), float16, kept in a file for the next start."""
    if not file.exists():
        latents = draw_latents(vae, palette, SCENES, seed) * vae.config.scaling_factor
        torch.save(latents.half(), file)
    return random_scenes(palette, SCENES, seed), torch.load(file, weights_only=True)
