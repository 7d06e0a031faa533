"""A demo model opened for measuring: prompts with emphasis, predictions and samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from demo_texts import SIZE_IDS
from demo_vae import to_tensor
from diffusers import DDIMScheduler, DiffusionPipeline

GUIDANCE = 5.0
STEPS = 25
BATCH = 16


@dataclass(frozen=True)
class Told:
    """What the U-Net is told of B prompts: hidden states (B, 77, C), and with SDXL pooled states (B, P)."""

    context: torch.Tensor
    pooled: torch.Tensor | None = None

    @staticmethod
    def joined(parts: Sequence["Told"]) -> "Told":
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Told(torch.cat([part.context for part in parts]), torch.cat(pooled) if pooled else None)


class DemoModel:
    """A Stable Diffusion 1 or XL pipeline in single precision."""

    def __init__(self, directory: Path) -> None:
        self.pipeline = DiffusionPipeline.from_pretrained(directory).to(torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.scheduler = DDIMScheduler.from_config(self.pipeline.scheduler.config)
        self.pipeline.scheduler = self.scheduler
        self.xl = hasattr(self.pipeline, "text_encoder_2")

    def told(self, prompt: str) -> Told:
        """What the U-Net is told of a prompt."""
        return self.emphasised(prompt, "", 1.0)

    @torch.no_grad()
    def emphasised(self, prompt: str, words: str, weight: float) -> Told:
        """The same with some words' rows multiplied, and the mean of each encoder's states restored."""
        tokenizer = self.pipeline.tokenizer
        tokens, part = (tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, words))
        start = next(index for index in range(len(tokens) + 1) if tokens[index : index + len(part)] == part)
        states, pooled = zip(*self._encoded(prompt), strict=True)
        columns = []
        for plain in states:
            scaled = plain.clone()
            scaled[:, 1 + start : 1 + start + len(part)] *= weight  # the start token comes first
            columns.append(scaled * (plain.mean() / scaled.mean()))
        return Told(torch.cat(columns, dim=-1), pooled[-1])

    def _encoded(self, prompt: str) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Each encoder's hidden states (1, 77, width), of SDXL the last but one, and its pooled state or None."""
        for number in ("", "_2") if self.xl else ("",):
            tokenizer, encoder = (getattr(self.pipeline, part + number) for part in ("tokenizer", "text_encoder"))
            tokens = tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
            output = encoder(tokens, output_hidden_states=True)
            yield output.hidden_states[-2] if self.xl else output.last_hidden_state, output.get("text_embeds")

    def _nothing(self) -> Told:
        """What the other side is told where there is no negative prompt: of the empty one, SDXL's U-Net zeros."""
        empty = self.told("")
        if empty.pooled is None:
            return empty
        return Told(torch.zeros_like(empty.context), torch.zeros_like(empty.pooled))

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
    def predict(self, latents: torch.Tensor, time: int, told: Sequence[Told]) -> torch.Tensor:
        """Predicted noise (N, 4, 16, 16) of the same latents (1, 4, 16, 16) for N prompts."""
        batch = Told.joined(told)
        latents, added = latents.expand(len(told), -1, -1, -1), None
        if batch.pooled is not None:
            sizes = batch.pooled.new_tensor(SIZE_IDS).expand(len(told), -1)  # (N, 6)
            added = {"text_embeds": batch.pooled, "time_ids": sizes}
        return self.pipeline.unet(latents, time, batch.context, added_cond_kwargs=added).sample

    def sample(self, told: Sequence[Told], seed: int, guidance: float = GUIDANCE) -> list[np.ndarray]:
        """One picture, uint8 (128, 128, 3), for each prompt, by deterministic DDIM."""
        pictures: list[np.ndarray] = []
        for start in range(0, len(told), BATCH):
            batch = Told.joined(told[start : start + BATCH])
            count = len(batch.context)
            nothing = Told.joined([self._nothing()] * count)
            pooled = {"pooled_prompt_embeds": batch.pooled, "negative_pooled_prompt_embeds": nothing.pooled}
            drawn = self.pipeline(
                prompt_embeds=batch.context,
                negative_prompt_embeds=nothing.context,
                guidance_scale=guidance,
                num_inference_steps=STEPS,
                generator=[torch.Generator().manual_seed(seed + start + i) for i in range(count)],
                output_type="np",
                **(pooled if self.xl else {}),
            ).images  # (B, 128, 128, 3), 0..1
            pictures += [to_picture(picture) for picture in drawn]
        return pictures


def to_picture(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 to uint8."""
    return (255 * values.clip(0, 1) + 0.5).astype(np.uint8)
