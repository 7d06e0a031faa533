"""A demo model opened for measuring: contexts with emphasis, predictions and samples."""

from pathlib import Path

import numpy as np
import torch
from demo_vae import to_tensor
from diffusers import DDIMScheduler, StableDiffusionPipeline

GUIDANCE = 5.0
STEPS = 25
BATCH = 16


class DemoModel:
    """A Stable Diffusion 1 pipeline in single precision."""

    def __init__(self, directory: Path) -> None:
        self.pipeline = StableDiffusionPipeline.from_pretrained(directory).to(torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.scheduler = DDIMScheduler.from_config(self.pipeline.scheduler.config)
        self.pipeline.scheduler = self.scheduler

    @torch.no_grad()
    def context(self, prompt: str) -> torch.Tensor:
        """Hidden states of a prompt, (1, 77, 96)."""
        tokens = self.pipeline.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt")
        return self.pipeline.text_encoder(tokens.input_ids).last_hidden_state

    def emphasised(self, prompt: str, words: str, weight: float) -> torch.Tensor:
        """Hidden states with some words' rows multiplied and the mean restored, (1, 77, 96)."""
        tokens, part = (self.pipeline.tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, words))
        start = next(index for index in range(len(tokens)) if tokens[index : index + len(part)] == part)
        plain = self.context(prompt)
        scaled = plain.clone()
        scaled[:, 1 + start : 1 + start + len(part)] *= weight  # the start token comes first
        return scaled * (plain.mean() / scaled.mean())

    @torch.no_grad()
    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Scaled latents (B, 4, 16, 16) of pictures (B, 3, 128, 128) in -1..1."""
        vae = self.pipeline.vae
        return vae.encode(pictures).latent_dist.mode() * vae.config.scaling_factor

    @torch.no_grad()
    def reconstructed(self, picture: np.ndarray) -> np.ndarray:
        """A picture, uint8 (128, 128, 3), after the autoencoder."""
        vae = self.pipeline.vae
        decoded = vae.decode(self.encode(to_tensor(picture)[None]) / vae.config.scaling_factor).sample[0]
        return to_picture(decoded.permute(1, 2, 0).numpy() / 2 + 0.5)

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, time: int) -> torch.Tensor:
        """Latents at a time of 0..999."""
        return self.scheduler.add_noise(latents, noise, torch.tensor([time]))

    @torch.no_grad()
    def predict(self, latents: torch.Tensor, time: int, contexts: torch.Tensor) -> torch.Tensor:
        """Predicted noise (N, 4, 16, 16) of the same latents (1, 4, 16, 16) under N contexts."""
        return self.pipeline.unet(latents.expand(len(contexts), -1, -1, -1), time, contexts).sample

    def sample(self, contexts: list[torch.Tensor], seed: int, guidance: float = GUIDANCE) -> list[np.ndarray]:
        """One picture, uint8 (128, 128, 3), for each context, by deterministic DDIM."""
        pictures: list[np.ndarray] = []
        for start in range(0, len(contexts), BATCH):
            batch = torch.cat(contexts[start : start + BATCH])
            generators = [torch.Generator().manual_seed(seed + start + index) for index in range(len(batch))]
            drawn = self.pipeline(
                prompt_embeds=batch,
                negative_prompt_embeds=self.context("").expand(len(batch), -1, -1),
                guidance_scale=guidance,
                num_inference_steps=STEPS,
                generator=generators,
                output_type="np",
            ).images  # (B, 128, 128, 3), 0..1
            pictures += [to_picture(picture) for picture in drawn]
        return pictures


def to_picture(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 to uint8."""
    return (255 * values.clip(0, 1) + 0.5).astype(np.uint8)
