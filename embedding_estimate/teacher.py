"""The teacher: the host's own pipeline with the real prompt, run once; what it saw and said is kept.

Classifier-free guidance is affine in its two predictions (Ho & Salimans 2022), so an embedding that matches the
prediction of the side it replaces matches the whole pipeline. Only that side is recorded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from embedding_estimate.contexts import Contexts
from embedding_estimate.host import BorrowedModel, Conditioning, Stage, Vectors
from embedding_estimate.names import typed_name
from embedding_estimate.out_of_memory import ran_out
from embedding_estimate.settings import Settings

SELECT_SEED = 2_000_010_000  # beyond `settings.SEED_LIMIT`: nothing is trained on these
REPORT_SEED = 2_000_020_000  # nothing is trained or chosen on these
ROUNDING = 1e-5  # relative difference of two conditionings that are the same but for rounding
CELLS = 2 * 128 * 128  # latent cells in one pass without gradients: an SDXL picture's, both sides of the guidance


@dataclass(frozen=True)
class Task:
    """What the embedding is to stand for, and where."""

    text: str
    negative: bool
    other_prompts: tuple[str, ...]  # the other side's texts, drawn in turn from seed to seed
    width: int  # pixels
    height: int
    typed_weight: float = 1.0  # of the embedding's name, as in (name:1.2)

    @classmethod
    def of(cls, settings: Settings, model: BorrowedModel) -> Task:
        size = model.info.default_size
        return cls(
            settings.text,
            settings.negative,
            settings.other_prompts,
            settings.width or size,
            settings.height or size,
            settings.typed_weight or 1.0,
        )


@dataclass(frozen=True)
class Trajectory:
    """How latents are drawn."""

    sampler: str
    schedule: str
    steps: int
    guidance_scale: float

    @classmethod
    def of(cls, settings: Settings) -> Trajectory:
        return cls(settings.sampler, settings.schedule, settings.steps, settings.guidance_scale)


@dataclass(frozen=True)
class States:
    """Noised latents along trajectories, and what the teacher predicted there for the side being replaced."""

    x: Tensor  # (S, C, h, w)
    sigma: Tensor  # (S,)
    target: Tensor  # (S, C, h, w) denoised, the side being replaced
    other: Tensor  # (S, C, h, w) denoised, the other side
    evaluation: Tensor  # (S,) the 0-based denoiser evaluation
    seed: Tensor  # (S,) whose trajectory it is on

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor | slice) -> States:
        return States(*(getattr(self, field.name)[index] for field in fields(self)))

    def at(self, places: Sequence[int]) -> States:
        """Some of them, without the upload of an index, for which a device waits."""
        return States(*(torch.stack([getattr(self, field.name)[place] for place in places]) for field in fields(self)))

    def split(self, size: int) -> Iterator[States]:
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def spread(self, number: int) -> States:
        """At most so many of them, spread evenly over the sampling."""
        ordered = self[self.evaluation.argsort(stable=True)]
        return ordered[torch.linspace(0, len(self) - 1, min(max(number, 1), len(self))).round().long()]

    @classmethod
    def join(cls, parts: Sequence[States]) -> States:
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def alike(mine: Conditioning, theirs: Conditioning) -> bool:
    """Whether two conditionings are the same but for rounding; not where one is no number."""
    pairs = ((mine.context, theirs.context), (mine.vector, theirs.vector))
    return all(
        a is b if a is None or b is None else a.shape == b.shape and bool((a - b).norm() <= ROUNDING * b.norm())
        for a, b in pairs
    )


@dataclass(frozen=True)
class Side:
    """One side of the guidance: a prompt as encoded, with its schedule and its `AND`."""

    model: BorrowedModel
    stages: Sequence[Stage]

    def stage(self, evaluation: int) -> Stage:
        return next((stage for stage in self.stages if evaluation <= stage.until), self.stages[0])

    @property
    def scheduled(self) -> bool:
        return len(self.stages) > 1

    @property
    def composed(self) -> bool:
        """Whether the prediction depends on the other side's or on more than one context."""
        return any(len(s.parts) > 1 or s.parts[0][1] != 1 for s in self.stages)

    def same_as(self, side: Side) -> bool:
        """Whether both predict the same, each from one conditioning all along."""
        if any(other.scheduled or other.composed for other in (self, side)):
            return False
        mine, theirs = (other.stages[0].parts[0][0] for other in (self, side))
        pairs = ((mine.context, theirs.context), (mine.vector, theirs.vector))
        return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)

    @property
    def weights_sum_to_one(self) -> bool:
        return all(abs(sum(weight for _, weight in s.parts) - 1) < 1e-6 for s in self.stages)

    def conditionings(self, evaluation: int) -> list[Conditioning]:
        return [conditioning for conditioning, _ in self.stage(evaluation).parts]

    def composed_of(self, found: Sequence[Tensor], evaluation: int, other: Tensor | None = None) -> Tensor:
        """Denoised (B, C, h, w) from those under each conditioning; `AND` is composed on the `other` side's
        (B, C, h, w), as Liu et al. 2022."""
        parts = self.stage(evaluation).parts
        if other is None or (len(parts) == 1 and parts[0][1] == 1):
            return found[0]
        return other + sum(weight * (one - other) for one, (_, weight) in zip(found, parts, strict=True))

    def denoise(self, x: Tensor, sigma: Tensor, evaluation: int, other: Tensor | None = None) -> Tensor:
        """Denoised (B, C, h, w)."""
        return self.composed_of(_predictions(self.model, x, sigma, self.conditionings(evaluation)), evaluation, other)


class Teacher:
    """Encodes prompts for a task and runs them."""

    def __init__(self, model: BorrowedModel, task: Task, on_record: Callable[[int], None] = lambda states: None):
        """`on_record` is told how many states `record` has recorded, with each evaluation."""
        self.model = model
        self.task = task
        self.on_record = on_record

    @property
    def contexts(self) -> Contexts:
        """The model's, for the side of the guidance that is replaced."""
        info = self.model.info
        return info.negative_contexts if self.task.negative else info.contexts

    def side(self, prompt: str, trajectory: Trajectory, *, negative: bool, weights: bool = True) -> Side:
        """A prompt on the side named, its schedule counted along the trajectory."""
        evaluations = self.model.evaluations(trajectory.sampler, trajectory.steps)
        size = {"width": self.task.width, "height": self.task.height}
        return Side(
            self.model,
            self.model.encode(prompt, evaluations=evaluations, negative=negative, weights=weights, **size),
        )

    def replaced(self, prompt: str, trajectory: Trajectory, *, weights: bool = True) -> Side:
        """A prompt on the side that the embedding will be typed on."""
        return self.side(prompt, trajectory, negative=self.task.negative, weights=weights)

    def typed(self, weight: float) -> Teacher:
        """The same with another weight typed."""
        return Teacher(self.model, replace(self.task, typed_weight=weight), self.on_record)

    def encode_vectors(self, vectors: Vectors, template: str = "{}") -> Conditioning:
        """The student's conditioning: the vectors typed on the side being replaced. Differentiable."""
        return self.encode_each(vectors, [template])[0]

    def encode_each(self, vectors: Vectors, templates: Sequence[str]) -> list[Conditioning]:
        """The same for several templates."""
        task = self.task
        if task.typed_weight != 1:
            templates = [template.replace("{}", typed_name("{}", task.typed_weight)) for template in templates]
        return self.model.encode_vectors(
            vectors, templates, width=task.width, height=task.height, negative=task.negative
        )

    def student(self, vectors: Vectors, template: str = "{}") -> Side:
        """The side being replaced, with the vectors typed there."""
        return Side(self.model, [Stage(0, ((self.encode_vectors(vectors, template), 1.0),))])

    @torch.no_grad()
    def run(
        self,
        side: Side,
        trajectory: Trajectory,
        seeds: Sequence[int],
        batch: int,
        see: Callable[[States], None] = lambda states: None,
    ) -> Tensor:
        """Samples with `side` where the embedding will be; returns latents (len(seeds), C, h, w).

        `see` is shown each evaluation's states. At most `batch` seeds are sampled together, fewer of large ones; what
        a seed gives depends neither on that nor on the other seeds.
        """
        batch = _fitting(batch, self.task.width * self.task.height // 64)
        latents: dict[int, Tensor] = {}
        others = self.task.other_prompts
        for index, text in enumerate(others):
            other = self.side(text, trajectory, negative=not self.task.negative)
            mine = [seed for seed in seeds if seed % len(others) == index]
            for start in range(0, len(mine), batch):
                chunk = mine[start : start + batch]
                sampled = self.model.sample(
                    self._guided(side, other, trajectory.guidance_scale, chunk, see),
                    sampler=trajectory.sampler,
                    schedule=trajectory.schedule,
                    steps=trajectory.steps,
                    seeds=chunk,
                    width=self.task.width,
                    height=self.task.height,
                )
                latents.update(zip(chunk, sampled, strict=True))
        return torch.stack([latents[seed] for seed in seeds])

    def record(self, side: Side, trajectory: Trajectory, seeds: Sequence[int], batch: int) -> States:
        """All states that the side passes through from these seeds, with its predictions as targets."""
        return self.record_and_end(side, trajectory, seeds, batch)[0]

    def record_and_end(
        self, side: Side, trajectory: Trajectory, seeds: Sequence[int], batch: int
    ) -> tuple[States, Tensor]:
        """The same, and the latents (len(seeds), C, h, w) that they end in."""
        seen: list[States] = []

        def see(states: States) -> None:
            seen.append(states)
            self.on_record(len(states))

        latents = self.run(side, trajectory, seeds, batch, see)
        return States.join(seen), latents

    def other_is_empty(self, trajectory: Trajectory) -> bool:
        """Whether the other side predicts what the empty prompt does on this one."""
        first, *more = self.task.other_prompts
        other = self.side(first, trajectory, negative=not self.task.negative)
        return not more and other.same_as(self.replaced("", trajectory))

    @torch.no_grad()
    def errors_of_nothing(self, states: States, trajectory: Trajectory, batch: int) -> Tensor:
        """The empty prompt's `errors` (S,), without the U-Net where the other side recorded them."""
        if self.other_is_empty(trajectory):
            return _squares(states.other, states)
        return errors(self.replaced("", trajectory), states, batch)

    def error_of_nothing(self, states: States, trajectory: Trajectory, batch: int) -> float:
        """err(empty prompt)."""
        return _mean(self.errors_of_nothing(states, trajectory, batch))

    def _guided(
        self, side: Side, other: Side, guidance_scale: float, seeds: Sequence[int], see: Callable[[States], None]
    ) -> Callable[[Tensor, Tensor, int], Tensor]:
        """u + scale * (c - u), whichever of the two the embedding replaces."""
        seed = torch.tensor(seeds, device=self.model.device)  # (S,)
        cond, uncond = (other, side) if self.task.negative else (side, other)
        alike = side.same_as(other)  # then guidance is nothing, and one prediction serves for both

        def denoise(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
            if alike:
                u = c = side.denoise(x, sigma, evaluation)
            else:
                u, c = both_sides(cond, uncond, x, sigma, evaluation)
            target, theirs = (u, c) if self.task.negative else (c, u)
            see(States(x, sigma, target, theirs, torch.full_like(seed, evaluation), seed))
            return u + guidance_scale * (c - u)

        return denoise


def both_sides(cond: Side, uncond: Side, x: Tensor, sigma: Tensor, evaluation: int) -> tuple[Tensor, Tensor]:
    """What guidance is made of: u and c, denoised (B, C, h, w) each."""
    first = uncond.conditionings(evaluation)
    found = _predictions(cond.model, x, sigma, [*first, *cond.conditionings(evaluation)])
    u = uncond.composed_of(found[: len(first)], evaluation)
    return u, cond.composed_of(found[len(first) :], evaluation, u)


def _predictions(model: BorrowedModel, x: Tensor, sigma: Tensor, conditionings: Sequence[Conditioning]) -> list[Tensor]:
    """Denoised (B, C, h, w) under each, without gradients from as few passes as there is memory for.

    Raises the model's own error where there is none for one latent.
    """
    try:
        return _in_one_pass(model, x, sigma, conditionings)
    except (RuntimeError, MemoryError) as error:
        if torch.is_grad_enabled() or len(x) * len(conditionings) == 1 or not ran_out(error):
            raise
    if len(x) == 1:
        return [_predictions(model, x, sigma, [conditioning])[0] for conditioning in conditionings]
    halves = zip(x.tensor_split(2), sigma.tensor_split(2), strict=True)
    found = [_predictions(model, *half, conditionings) for half in halves]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _in_one_pass(model: BorrowedModel, x: Tensor, sigma: Tensor, conditionings: Sequence[Conditioning]) -> list[Tensor]:
    """Denoised (B, C, h, w) under each; pass by pass where contexts differ in length or are more than `CELLS`."""
    number, batch = len(conditionings), len(x)
    lengths = {conditioning.context.shape[1] for conditioning in conditionings}
    if number == 1 or len(lengths) > 1 or number * batch * x[0, 0].numel() > CELLS:
        return [model.denoise(x, sigma, conditioning) for conditioning in conditionings]
    contexts = [c.context.expand(batch, -1, -1) for c in conditionings]  # (B, L, C) each
    vectors = [c.vector.expand(batch, -1) for c in conditionings if c.vector is not None]  # (B, V) each
    joined = Conditioning(torch.cat(contexts), torch.cat(vectors) if vectors else None)
    return list(model.denoise(x.repeat(number, 1, 1, 1), sigma.repeat(number), joined).chunk(number))


def _fitting(batch: int, cells: int) -> int:
    """As many samples of so many latent cells as there is memory for where pictures can be generated."""
    return max(1, min(batch, CELLS // cells))


def epsilon(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """The noise that a denoised latent implies, (x - D) / sigma: (B, C, h, w)."""
    return (x - denoised) / sigma.view(-1, 1, 1, 1)


def error(side: Side, states: States, batch: int) -> float:
    """err(c) = mean over states of |D(x; c) - D(x; prompt)|^2 / sigma^2, per element, in epsilon units."""
    return _mean(errors(side, states, batch))


@torch.no_grad()
def errors(side: Side, states: States, batch: int) -> Tensor:
    """What `error` is the mean of, of each state (S,)."""
    batch, squares = _fitting(batch, states.x[0, 0].numel()), []
    order = states.evaluation.argsort(stable=True)  # neighbours share a stage
    for part in by_stage(side, states[order]):
        for chunk in part.split(batch):
            denoised = side.denoise(chunk.x, chunk.sigma, int(chunk.evaluation[0]), chunk.other)
            squares.append(_squares(denoised, chunk))
    return torch.cat(squares)[order.argsort()]


def _mean(squares: Tensor) -> float:
    """Of (S,), in double precision whatever the model's is."""
    return float(squares.cpu().double().mean())


def _squares(denoised: Tensor, states: States) -> Tensor:
    """|D - target|^2 / sigma^2 of each state, per element, in epsilon units: (B,)."""
    difference = (denoised - states.target) / states.sigma.view(-1, 1, 1, 1)
    return difference.square().mean(dim=(1, 2, 3))


def by_stage(side: Side, states: States) -> Iterator[States]:
    """Cuts states, in order of their evaluation, where the side's stage changes."""
    ends = [side.stage(evaluation).until for evaluation in states.evaluation.cpu().tolist()]
    cuts = [0, *(i for i in range(1, len(ends)) if ends[i] != ends[i - 1]), len(ends)]
    for start, end in itertools.pairwise(cuts):
        yield states[start:end]
