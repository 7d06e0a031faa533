"""The demo model's U-Net and its training: noise prediction on latents, as SD1 and SDXL were trained."""

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_captions import phrases
from demo_checkpoint import Checkpoint, Progress, learning_rate
from demo_texts import Texts
from demo_vae import draw_latents, random_scenes
from demo_world import Group, Palette, Scene
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.nn import functional

SCENES = 24_000
BATCH = 32
WORKERS = 2  # threads, each with half of the batch: many small operations do not share cores well
FIRST_RATE, LATER_RATE = 8e-4, 3e-4  # peaks of the learning rate
AVERAGING = 0.999  # decay of the moving average of the weights
DROPPED_CAPTIONS = 0.1  # for classifier-free guidance
HIDDEN_ENDS = 0.3  # share of captions whose end tokens the U-Net may not look at ...
HIDDEN_POOLED = 0.4  # ... and of those, these among them, whose pooled state it does not get
POOLED_ALONE = 0.2  # share of captions of which it gets nothing else
TIME_WIDTH = 32  # of each of SDXL's six time ids
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


def new_unet(texts: Texts) -> UNet2DConditionModel:
    """SD1's or SDXL's U-Net with two resolutions, both with cross-attention."""
    family: dict[str, Any] = {}
    if texts.pooled_width:
        family = {
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_WIDTH,
            "projection_class_embeddings_input_dim": texts.pooled_width + 6 * TIME_WIDTH,
        }
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(64, 128),
        layers_per_block=1,
        attention_head_dim=4,  # the number of heads, as diffusers reads SD1's configuration
        cross_attention_dim=texts.width,
        norm_num_groups=8,  # SD1 too has about ten channels in a group; fewer lose the background
        **family,
    )


@torch.no_grad()
def take_weights(unet: UNet2DConditionModel, source: UNet2DConditionModel) -> None:
    """Copy the weights whose shapes fit, a 1x1 convolution's for a linear layer too."""
    theirs = source.state_dict()
    for name, weight in unet.state_dict().items():
        if name in theirs and theirs[name].squeeze().shape == weight.squeeze().shape:
            weight.copy_(theirs[name].view_as(weight))


def train_unet(
    vae: AutoencoderKL,
    texts: Texts,
    palette: Palette,
    cycles: list[int],
    seed: int,
    checkpoint: Checkpoint,
    latents_file: Path,
    *,
    start: UNet2DConditionModel | None = None,
    workers: int = WORKERS,
    device: str = "cpu",
    mixed: bool = True,
) -> UNet2DConditionModel:
    """Train on captions of the frozen text encoders; returns the moving average of the weights.

    Args:
        cycles: steps in each cycle of the learning rate (Loshchilov & Hutter, "SGDR", 2017); every
            cycle ends in a usable model. All but the last learn mostly at high noise, the last one
            evenly.
        start: a trained U-Net, whose weights are taken where they fit; then no cycle has the first one's high rate.
        workers: threads that share a batch.
        device: to train on; the encoders of `texts` have to be there.
        mixed: in mixed precision, with bfloat16.
    """
    torch.manual_seed(seed)
    steps = sum(cycles)
    unet = new_unet(texts).to(memory_format=torch.channels_last)
    if start is not None:
        take_weights(unet, start)
    unet.to(device).set_attn_processor(AttnProcessor())  # the fused attention is slow backwards on a CPU
    average = copy.deepcopy(unet).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(unet.parameters(), betas=(0.9, 0.99), weight_decay=1e-2)
    first = checkpoint.restore(model=unet, average=average, optimizer=optimizer)
    if first >= steps:
        return average
    scenes, latents = _training_latents(vae, palette, seed, latents_file)
    alphas = new_scheduler().alphas_cumprod.to(device)  # (TIMES,)
    progress = Progress("unet", steps)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    for step in range(first, steps):
        rng = np.random.default_rng([seed, 4, step])
        torch.manual_seed(seed * 1_000_003 + step)
        chosen = rng.integers(len(scenes), size=BATCH)
        clean = latents[torch.from_numpy(chosen)].float()  # (B, 4, 16, 16)
        captions = _captions(texts, [scenes[index] for index in chosen], rng)
        noise = _noise(clean.shape, NOISE_OFFSET if step < OFFSET_STEPS * cycles[0] else 0.0)
        batch = (*captions, clean, noise, _times(len(clean), towards_noise=step < steps - cycles[-1]))
        shares = zip(*(tensor.to(device).chunk(workers) for tensor in batch), strict=True)
        results = list(pool.map(lambda share: _gradients(unet, texts, alphas, mixed, *share), shares))
        for weight, *gradients in zip(unet.parameters(), *(gradients for _, gradients in results), strict=True):
            weight.grad = torch.stack(gradients).mean(0)
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate_in_cycles(step, cycles, LATER_RATE if start is not None else FIRST_RATE)
        optimizer.step()
        _follow(average, unet, min(AVERAGING, (1 + step) / (10 + step)))
        progress.report(step, loss=sum(loss for loss, _ in results) / workers)
        checkpoint.save_now_and_then(step + 1, last=step + 1 == steps, model=unet, average=average, optimizer=optimizer)
    return average


def rate_in_cycles(step: int, cycles: list[int], peak: float) -> float:
    """The learning rate of a step when it warms up and falls once in every cycle, from `peak` in the first one."""
    for length in cycles:
        if step < length:
            return learning_rate(step, length, peak)
        step, peak = step - length, LATER_RATE
    raise ValueError("the step lies behind the last cycle")


def _captions(texts: Texts, scenes: list[Scene | Group], rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Fresh captions: token ids (B, encoders, 77), which rows the U-Net may look at (B, 77), what it gets (B, 2).

    The end tokens know the whole caption. Hiding them now and then makes the U-Net read the words' own rows too, which
    is what emphasis and learned embeddings act on. So does hiding the pooled state, which in turn would be left aside
    if it never came alone. SDXL's pictures without a prompt get zeros instead of the empty caption; half of the
    dropped ones learn that, half the empty caption.
    """
    tokens, visible, kept = [], [], []
    for index, scene in enumerate(scenes):
        dropped = rng.random() < DROPPED_CAPTIONS
        ids, end = texts.encode([] if dropped else list(phrases(scene, rng)))
        rows = np.ones(ids.shape[1], dtype=bool)
        if dropped:
            kept.append([index % 2 == 0] * 2)
        else:
            shown = rng.random()
            rows[end:] = shown >= HIDDEN_ENDS
            kept.append([shown < 1 - POOLED_ALONE, shown >= HIDDEN_POOLED])
        tokens.append(ids)
        visible.append(rows)
    return torch.from_numpy(np.stack(tokens)), torch.from_numpy(np.stack(visible)), torch.tensor(kept)


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
    texts: Texts,
    alphas: torch.Tensor,
    mixed: bool,
    tokens: torch.Tensor,
    visible: torch.Tensor,
    kept: torch.Tensor,
    clean: torch.Tensor,
    noise: torch.Tensor,
    times: torch.Tensor,
) -> tuple[float, tuple[torch.Tensor, ...]]:
    """The loss on a share of a batch and its gradients by the U-Net's parameters."""
    alpha = alphas[times]  # (B,)
    signal, sigma = alpha.sqrt().view(-1, 1, 1, 1), (1 - alpha).sqrt().view(-1, 1, 1, 1)
    noised = (signal * clean + sigma * noise).contiguous(memory_format=torch.channels_last)
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=mixed):
        with torch.no_grad():
            told = texts.told(tokens, kept)
        predicted = unet(noised, times, encoder_attention_mask=visible, **told).sample
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


def _training_latents(
    vae: AutoencoderKL, palette: Palette, seed: int, file: Path
) -> tuple[list[Scene | Group], torch.Tensor]:
    """Scenes and scaled latents (SCENES, 4, 16, 16), float16, kept in a file for the next start."""
    if not file.exists():
        latents = draw_latents(vae, palette, SCENES, seed) * vae.config.scaling_factor
        torch.save(latents.half(), file)
    return random_scenes(palette, SCENES, seed), torch.load(file, weights_only=True)
