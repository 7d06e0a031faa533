"""The demo model's autoencoder: 128x128 pictures to 4x16x16 latents, eight times smaller as in SD."""

import numpy as np
import torch
from demo_checkpoint import Checkpoint, Progress, learning_rate
from demo_world import PICTURE_SIZE, Group, Palette, Scene, draw, random_scene
from diffusers import AutoencoderKL
from torch.nn import functional

BATCH = 16
CROP = 64  # pixels; small crops make for more steps a second, whole pictures follow at the end
WHOLE_PICTURES = 0.1  # share of the steps
POOLS = (4, 16)  # pixels
PEAK_RATE = 2e-3
KL_WEIGHT = 1e-3  # against the mean absolute error; keeps the latents near N(0, 1)


def new_vae() -> AutoencoderKL:
    """SD1's autoencoder, much narrower."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,  # as SD: fewer than four channels in a group would lose the colour of an even area
        sample_size=PICTURE_SIZE,
    )


def train_vae(palette: Palette, steps: int, seed: int, checkpoint: Checkpoint) -> AutoencoderKL:
    """Train with absolute error and a small KL term, then bring the latents to a common scale."""
    vae = new_vae().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    first = checkpoint.restore(model=vae, optimizer=optimizer)
    progress = Progress("vae", steps)
    for step in range(first, steps):
        rng = np.random.default_rng([seed, 1, step])
        torch.manual_seed(seed * 1_000_003 + step)
        pictures = _pictures([random_scene(palette, rng) for _ in range(BATCH)], palette, rng)
        if step < (1 - WHOLE_PICTURES) * steps:
            left, top = rng.integers(0, PICTURE_SIZE - CROP + 1, 2)
            pictures = pictures[:, :, top : top + CROP, left : left + CROP]
        posterior = vae.encode(pictures).latent_dist
        error = picture_error(vae.decode(posterior.sample()).sample, pictures)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = error + KL_WEIGHT * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, PEAK_RATE)
        optimizer.step()
        progress.report(step, error=error.item(), kl=kl.item())
        checkpoint.save_now_and_then(step + 1, last=step + 1 == steps, model=vae, optimizer=optimizer)
    vae.eval().requires_grad_(False)
    equalise_latents(vae, draw_latents(vae, palette, 512, seed=seed + 1))
    return vae


def picture_error(output: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of the pictures (B, 3, H, W) and of their averages over larger squares.

    The averages make the autoencoder learn colours at once; by the pixels alone it learns light and
    dark first and colours only much later.
    """
    error = functional.l1_loss(output, pictures)
    for pool in POOLS:
        error = error + functional.l1_loss(functional.avg_pool2d(output, pool), functional.avg_pool2d(pictures, pool))
    return error


@torch.no_grad()
def equalise_latents(vae: AutoencoderKL, latents: torch.Tensor) -> None:
    """Give the latent channels zero mean and one common spread, and set the scaling factor for unit spread.

    The 1x1 convolutions around the latents take up the change, so pictures come out as before.

    Args:
        vae: the trained autoencoder.
        latents: unscaled samples of its latents, (N, 4, 16, 16).
    """
    spread = latents.std()
    mean, gain = latents.mean((0, 2, 3)), spread / latents.std((0, 2, 3))  # (4,)
    channels = len(gain)
    into, out_of = vae.quant_conv, vae.post_quant_conv
    into.weight[:channels] *= gain.view(-1, 1, 1, 1)
    into.bias[:channels] = (into.bias[:channels] - mean) * gain
    into.bias[channels:] += 2 * gain.log()  # the posterior's log variance
    out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    out_of.weight /= gain.view(1, -1, 1, 1)
    vae.register_to_config(scaling_factor=round(1 / spread.item(), 4))


def random_scenes(palette: Palette, count: int, seed: int) -> list[Scene | Group]:
    """The scenes that draw_latents draws."""
    rng = np.random.default_rng([seed, 2])
    return [random_scene(palette, rng) for _ in range(count)]


@torch.no_grad()
def draw_latents(vae: AutoencoderKL, palette: Palette, count: int, seed: int) -> torch.Tensor:
    """Draw random scenes and encode them: unscaled samples of their latents, (count, 4, 16, 16)."""
    rng = np.random.default_rng([seed, 5])
    torch.manual_seed(seed)
    scenes = random_scenes(palette, count, seed)
    latents = []
    for start in range(0, count, 64):
        pictures = _pictures(scenes[start : start + 64], palette, rng)
        latents.append(vae.encode(pictures).latent_dist.sample())
    return torch.cat(latents)


def _pictures(scenes: list[Scene | Group], palette: Palette, rng: np.random.Generator) -> torch.Tensor:
    """Pictures of scenes, (B, 3, 128, 128), -1..1."""
    pictures = torch.stack([to_tensor(draw(scene, palette, rng)) for scene in scenes])
    return pictures.contiguous(memory_format=torch.channels_last)


def to_tensor(picture: np.ndarray) -> torch.Tensor:
    """uint8 (128, 128, 3) to float in -1..1, (3, 128, 128)."""
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1
