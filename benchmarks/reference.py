"""What estimates are compared with: the scheme of the tool that this project follows, written anew.

One guided step of the sampler with the vectors is compared with the same step with the prompt:

    loss = |step(x; vectors) - step(x; prompt)|^2,   step: one step of DPM++ SDE under classifier-free guidance

starting from noise of unit variance, and going on from the prompt's result to the sampler's next step. Each step asks
the denoiser twice, for two sides: 4 + 4 sample-forwards, half of them passed through backward. Adam, on the vectors as
they are. Both steps are given the same noise, without which the scheme learns little.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from embedding_estimate.model.host import BorrowedModel, Denoise, Vectors
from embedding_estimate.teaching.sides import Side, both_sides
from embedding_estimate.teaching.teacher import Task, Teacher, Trajectory

TRAJECTORY = Trajectory("DPM++ SDE", "Karras", 20, 7.0)
RATES = (0.03, 0.1, 0.3, 1.0)
"""Tried in turn, in spreads of the model's token vectors, so that they mean the same for every model."""


def sde_step(denoise: Denoise, x: Tensor, sigma: float, following: float, noise: Tensor, evaluation: int) -> Tensor:
    """One step of DPM-Solver++ SDE of second order from `sigma` to `following` (Lu et al. 2022), r = 1/2, eta = 1.

    x (B, C, h, w); noise (2, B, C, h, w), for the two halves of the step. Asks `denoise` twice, as evaluations
    `evaluation` and `evaluation + 1`; once where the step ends at 0.
    """
    denoised = denoise(x, _level(x, sigma), evaluation)
    if following == 0:
        return denoised
    middle = math.sqrt(sigma * following)
    halfway = _ancestral(x, denoised, sigma, middle, noise[0])
    return _ancestral(x, denoise(halfway, _level(x, middle), evaluation + 1), sigma, following, noise[1])


def _ancestral(x: Tensor, denoised: Tensor, sigma: float, following: float, noise: Tensor) -> Tensor:
    """From sigma down to sigma_down on the line through `denoised`, and up again to `following` by noise."""
    sigma_up = following * math.sqrt(1 - (following / sigma) ** 2)
    sigma_down = math.sqrt(following**2 - sigma_up**2)
    return denoised + (sigma_down / sigma) * (x - denoised) + sigma_up * noise


def _level(x: Tensor, sigma: float) -> Tensor:
    return x.new_full((len(x),), sigma)


def guided(cond: Side, uncond: Side, guidance_scale: float) -> Denoise:
    """u + scale * (c - u)."""

    def denoise(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
        u, c = both_sides(cond, uncond, x, sigma, evaluation)
        return u + guidance_scale * (c - u)

    return denoise


class Reference:
    """The scheme for one prompt. The embedding's side is replaced; the other side is as in the task."""

    def __init__(self, model: BorrowedModel, task: Task, seed: int):
        self.model = model
        self.teacher = Teacher(model, task)
        self.seed = seed
        self.prompt = self.teacher.replaced(task.text, TRAJECTORY)
        self.others = [self.teacher.side(text, TRAJECTORY, negative=not task.negative) for text in task.other_prompts]
        self.sigmas = [*self._sigmas(), 0.0]

    def learn(self, start: Vectors, rate: float) -> Iterator[Vectors]:
        """The vectors (N, width) after each learning step, without end unless the loss leaves the finite numbers."""
        leaves = {key: value.detach().clone().requires_grad_() for key, value in start.items()}
        optimizer = torch.optim.Adam(leaves.values(), lr=rate)
        generator = torch.Generator().manual_seed(self.seed)
        for other in itertools.cycle(self.others):
            x = self._noise(1, generator)[0]
            for index in range(len(self.sigmas) - 1):
                noise = self._noise(2, generator)
                loss, x = self.loss(leaves, other, x, index, noise)
                if not loss.isfinite():
                    return
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                yield {key: value.detach().clone() for key, value in leaves.items()}

    def loss(self, vectors: Vectors, other: Side, x: Tensor, index: int, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of one sampler step from x (1, C, h, w), and where the prompt's own step leads."""
        with torch.no_grad():
            target = self._step(self.prompt, other, x, index, noise)
        mine = self._step(self.teacher.student(vectors), other, x, index, noise)
        return torch.nn.functional.mse_loss(mine, target), target

    def _step(self, side: Side, other: Side, x: Tensor, index: int, noise: Tensor) -> Tensor:
        cond, uncond = (other, side) if self.teacher.task.negative else (side, other)
        denoise = guided(cond, uncond, TRAJECTORY.guidance_scale)
        return sde_step(denoise, x, self.sigmas[index], self.sigmas[index + 1], noise, 2 * index)

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Unit noise (count, 1, C, h, w)."""
        info, task = self.model.info, self.teacher.task
        cells = (task.height // info.latent_scale, task.width // info.latent_scale)
        noise = torch.randn(count, 1, info.latent_channels, *cells, generator=generator)
        return noise.to(self.model.device)

    def _sigmas(self) -> list[float]:
        """The schedule's levels (20,), seen in a run of a sampler that asks once per step."""
        seen: list[float] = []

        def denoise(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
            seen.append(float(sigma[0]))
            return x

        self.model.sample(
            denoise,
            sampler="Euler",
            schedule=TRAJECTORY.schedule,
            steps=TRAJECTORY.steps,
            seeds=[self.seed],
            width=self.teacher.task.width,
            height=self.teacher.task.height,
        )
        return seen
