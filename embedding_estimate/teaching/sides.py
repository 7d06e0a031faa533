"""One side of the guidance: the states that it is asked at, what it predicts there, and how far that is from the
teacher's prediction."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from embedding_estimate.errors.out_of_memory import first_that_fits
from embedding_estimate.model.host import BorrowedModel, Conditioning, Stage
from embedding_estimate.teaching.batches import passing

ROUNDING = 1e-5  # relative difference of two conditionings that are the same but for rounding
RHO = 7  # of the noise levels of Karras et al. 2022
CELLS = 2 * 128 * 128  # latent cells in one pass without gradients: an SDXL picture's, both sides of the guidance


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

    def between(self, number: int) -> States:
        """So many states spread evenly over the noise levels of all trajectories, taken from each in turn.

        A trajectory is a line from each state to the next one, as Euler's method follows it. What is predicted on the
        line was not asked: targets and `other` are not numbers.
        """
        ordered = self[self.evaluation.argsort(stable=True)]
        trajectories = [ordered[ordered.seed == seed] for seed in dict.fromkeys(self.seed.cpu().tolist())]
        parts = []
        for place in range(number):
            own = trajectories[place % len(trajectories)]
            along = (place + 0.5) / number * (len(own) - 1)
            parts.append(own.on_the_line(int(along), along % 1))
        return States.join(parts)

    def on_the_line(self, before: int, along: float) -> States:
        """The state `along` the way, from 0 to 1, from one state to the next, in the steps of Karras et al. 2022."""
        first, second = self[before : before + 1], self[before + 1 : before + 2]
        if not len(second):
            return first
        sigma = torch.lerp(first.sigma ** (1 / RHO), second.sigma ** (1 / RHO), along) ** RHO  # (1,)
        share = ((sigma - first.sigma) / (second.sigma - first.sigma)).view(-1, 1, 1, 1)
        unknown = torch.full_like(first.target, float("nan"))
        x = torch.lerp(first.x, second.x, share)
        return States(x, sigma, unknown, unknown, first.evaluation, first.seed)

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

    def composed_of(self, predictions: Sequence[Tensor], evaluation: int, other: Tensor | None = None) -> Tensor:
        """Denoised (B, C, h, w) from those under each conditioning; `AND` is composed on the `other` side's
        (B, C, h, w), as Liu et al. 2022."""
        parts = self.stage(evaluation).parts
        if other is None or (len(parts) == 1 and parts[0][1] == 1):
            return predictions[0]
        return other + sum(weight * (one - other) for one, (_, weight) in zip(predictions, parts, strict=True))

    def denoise(self, x: Tensor, sigma: Tensor, evaluation: int, other: Tensor | None = None) -> Tensor:
        """Denoised (B, C, h, w)."""
        return self.composed_of(_predictions(self.model, x, sigma, self.conditionings(evaluation)), evaluation, other)


def both_sides(cond: Side, uncond: Side, x: Tensor, sigma: Tensor, evaluation: int) -> tuple[Tensor, Tensor]:
    """What guidance is made of: u and c, denoised (B, C, h, w) each."""
    first = uncond.conditionings(evaluation)
    predictions = _predictions(cond.model, x, sigma, [*first, *cond.conditionings(evaluation)])
    u = uncond.composed_of(predictions[: len(first)], evaluation)
    return u, cond.composed_of(predictions[len(first) :], evaluation, u)


def _predictions(model: BorrowedModel, x: Tensor, sigma: Tensor, conditionings: Sequence[Conditioning]) -> list[Tensor]:
    """Denoised (B, C, h, w) under each, without gradients from as few passes as there is memory for.

    Raises the model's own error where there is none for one latent.
    """
    if torch.is_grad_enabled() or len(x) * len(conditionings) == 1:
        return _in_one_pass(model, x, sigma, conditionings)
    ways = (_in_one_pass, _in_parts)
    return first_that_fits(partial(way, model, x, sigma, conditionings) for way in ways)


def _in_parts(model: BorrowedModel, x: Tensor, sigma: Tensor, conditionings: Sequence[Conditioning]) -> list[Tensor]:
    """Denoised (B, C, h, w) under each: of one half of the latents after the other, or of one conditioning."""
    if len(x) == 1:
        return [_predictions(model, x, sigma, [conditioning])[0] for conditioning in conditionings]
    halves = zip(x.tensor_split(2), sigma.tensor_split(2), strict=True)
    predictions = [_predictions(model, *half, conditionings) for half in halves]
    return [torch.cat(parts) for parts in zip(*predictions, strict=True)]


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


def fitting(model: BorrowedModel, batch: int, cells: int) -> int:
    """As many samples of so many latent cells as there is memory for where pictures can be generated."""
    return passing(model, batch, cells, CELLS)


def epsilon(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """The noise that a denoised latent implies, (x - D) / sigma: (B, C, h, w)."""
    return (x - denoised) / sigma.view(-1, 1, 1, 1)


def error(side: Side, states: States, batch: int) -> float:
    """err(c) = mean over states of |D(x; c) - D(x; prompt)|^2 / sigma^2, per element, in epsilon units."""
    return mean_of(errors(side, states, batch))


@torch.no_grad()
def errors(side: Side, states: States, batch: int) -> Tensor:
    """What `error` is the mean of, of each state (S,)."""
    batch, of_chunks = fitting(side.model, batch, states.x[0, 0].numel()), []
    order = states.evaluation.argsort(stable=True)  # neighbours share a stage
    for part in by_stage(side, states[order]):
        for chunk in part.split(batch):
            denoised = side.denoise(chunk.x, chunk.sigma, int(chunk.evaluation[0]), chunk.other)
            of_chunks.append(squares(denoised, chunk))
    return torch.cat(of_chunks)[order.argsort()]


def mean_of(values: Tensor) -> float:
    """Of (S,), in double precision whatever the model's is."""
    return float(values.cpu().double().mean())


def squares(denoised: Tensor, states: States) -> Tensor:
    """|D - target|^2 / sigma^2 of each state, per element, in epsilon units: (B,)."""
    difference = (denoised - states.target) / states.sigma.view(-1, 1, 1, 1)
    return difference.square().mean(dim=(1, 2, 3))


def by_stage(side: Side, states: States) -> Iterator[States]:
    """Cuts states, in order of their evaluation, where the side's stage changes."""
    ends = [side.stage(evaluation).until for evaluation in states.evaluation.cpu().tolist()]
    cuts = [0, *(i for i in range(1, len(ends)) if ends[i] != ends[i - 1]), len(ends)]
    for start, end in itertools.pairwise(cuts):
        yield states[start:end]


def twins(rows: Mapping[str, Side]) -> dict[str, str]:
    """Rows that predict what one before them does, and which: bare words with room for all of them, for one."""
    pairs = itertools.combinations(rows, 2)
    return {later: earlier for earlier, later in reversed(list(pairs)) if rows[earlier].same_as(rows[later])}
