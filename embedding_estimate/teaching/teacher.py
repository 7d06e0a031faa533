"""The teacher: the host's own pipeline with the real prompt, run once; what it saw and said is kept.

Classifier-free guidance is affine in its two predictions (Ho & Salimans 2022), so an embedding that matches the
prediction of the side it replaces matches the whole pipeline. Only that side is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embedding_estimate.files.names import typed_name
from embedding_estimate.model.contexts import Contexts
from embedding_estimate.model.host import BorrowedModel, Conditioning, Stage, Vectors
from embedding_estimate.settings import Settings
from embedding_estimate.teaching.recall import Recall, RecallingModel
from embedding_estimate.teaching.sides import Side, States, both_sides, errors, fitting, mean_of, squares
from embedding_estimate.teaching.words import Word, slots

SELECT_SEED = 2_000_010_000  # beyond `settings.SEED_LIMIT`: nothing is trained on these
REPORT_SEED = 2_000_020_000  # nothing is trained or chosen on these


@dataclass(frozen=True)
class Task:
    """What the embedding is to stand for, and where."""

    text: str
    negative: bool
    other_prompts: tuple[str, ...]  # the other side's texts, drawn in turn from seed to seed
    width: int  # pixels
    height: int
    typed_weight: float = 1.0  # of the embedding's name, as in (name:1.2)
    words: tuple[Word, ...] = ()  # that share the vectors, each with a weight of its own; none for one word

    @classmethod
    def of(cls, settings: Settings, model: BorrowedModel, words: Sequence[Word] = ()) -> Task:
        """`words` are one of `words.plans`; a single one is a name with a typed weight."""
        size = model.info.default_size
        task = cls(
            settings.text,
            settings.negative,
            settings.other_prompts,
            settings.width or size,
            settings.height or size,
            settings.typed_weight or 1.0,
        )
        return task.in_words(words) if words else task

    def in_words(self, words: Sequence[Word]) -> Task:
        """The same with the vectors shared among these words, at least one."""
        alone = len(words) == 1
        return replace(self, typed_weight=words[0].weight if alone else 1.0, words=() if alone else tuple(words))

    @property
    def phrase(self) -> str:
        """What stands for `{}` in a template of the host's: all vectors, under the weights that they are typed with."""
        return slots(self.words) if self.words else typed_name("{}", self.typed_weight)


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


class Teacher:
    """Encodes prompts for a task and runs them."""

    def __init__(
        self,
        model: BorrowedModel,
        task: Task,
        on_record: Callable[[int], None] = lambda states: None,
        *,
        recall: Recall | None = None,
    ):
        """`on_record` is told how many states `record` has recorded, with each evaluation. What prompts predict, with
        `recall`, is asked of the model once."""
        self.model = model
        self.task = task
        self.on_record = on_record
        self.recall = recall
        self._recalling = model if recall is None else RecallingModel(model, recall)

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
            self._recalling,
            self.model.encode(prompt, evaluations=evaluations, negative=negative, weights=weights, **size),
        )

    def replaced(self, prompt: str, trajectory: Trajectory, *, weights: bool = True) -> Side:
        """A prompt on the side that the embedding will be typed on."""
        return self.side(prompt, trajectory, negative=self.task.negative, weights=weights)

    def typed(self, weight: float) -> Teacher:
        """The same with all vectors in one word of this weight."""
        return self._of(replace(self.task, typed_weight=weight, words=()))

    def in_words(self, words: Sequence[Word]) -> Teacher:
        """The same with the vectors shared among these words, at least one."""
        return self._of(self.task.in_words(words))

    def _of(self, task: Task) -> Teacher:
        return Teacher(self.model, task, self.on_record, recall=self.recall)

    def encode_vectors(self, vectors: Vectors, template: str = "{}") -> Conditioning:
        """The student's conditioning: the vectors typed on the side being replaced. Differentiable."""
        return self.encode_each(vectors, [template])[0]

    def encode_each(self, vectors: Vectors, templates: Sequence[str]) -> list[Conditioning]:
        """The same for several templates."""
        task = self.task
        filled = [template.replace("{}", task.phrase) for template in templates]
        return self.model.encode_vectors(vectors, filled, width=task.width, height=task.height, negative=task.negative)

    def student(self, vectors: Vectors, template: str = "{}", *, lasting: bool = False) -> Side:
        """The side being replaced, with the vectors typed there; `lasting` ones may be asked about again."""
        model = self._recalling if lasting else self.model
        return Side(model, [Stage(0, ((self.encode_vectors(vectors, template), 1.0),))])

    @torch.no_grad()
    def run(
        self,
        side: Side,
        trajectory: Trajectory,
        seeds: Sequence[int],
        batch: int,
        see: Callable[[States], None] = lambda states: None,
        *,
        until: int | None = None,
    ) -> Tensor:
        """Samples with `side` where the embedding will be; returns latents (len(seeds), C, h, w).

        `see` is shown each evaluation's states. The model is not asked from the evaluation `until` on, and the latents
        mean nothing then. At most `batch` seeds are sampled together, fewer of large ones; what
        a seed gives depends neither on that nor on the other seeds.
        """
        batch = fitting(self.model, batch, self.task.width * self.task.height // 64)
        latents: dict[int, Tensor] = {}
        others = self.task.other_prompts
        for index, text in enumerate(others):
            other = self.side(text, trajectory, negative=not self.task.negative)
            mine = [seed for seed in seeds if seed % len(others) == index]
            for start in range(0, len(mine), batch):
                chunk = mine[start : start + batch]
                sampled = self.model.sample(
                    self._guided(side, other, trajectory.guidance_scale, chunk, see, until),
                    sampler=trajectory.sampler,
                    schedule=trajectory.schedule,
                    steps=trajectory.steps,
                    seeds=chunk,
                    width=self.task.width,
                    height=self.task.height,
                )
                latents.update(zip(chunk, sampled, strict=True))
        return torch.stack([latents[seed] for seed in seeds])

    def record(
        self, side: Side, trajectory: Trajectory, seeds: Sequence[int], batch: int, *, at: Collection[int] = ()
    ) -> States:
        """The states that the side passes through from these seeds, with its predictions as targets: those `at` some
        evaluations, or all of them."""
        seen: list[States] = []

        def see(states: States) -> None:
            seen.append(states)
            self.on_record(len(states))

        self.run(side, trajectory, seeds, batch, see, until=max(at) + 1 if at else None)
        return States.join([states for states in seen if not at or int(states.evaluation[0]) in at])

    def record_and_end(
        self, side: Side, trajectory: Trajectory, seeds: Sequence[int], batch: int
    ) -> tuple[States, Tensor]:
        """All states, and the latents (len(seeds), C, h, w) that they end in."""
        seen: list[States] = []
        latents = self.run(side, trajectory, seeds, batch, seen.append)
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
            return squares(states.other, states)
        return errors(self.replaced("", trajectory), states, batch)

    def error_of_nothing(self, states: States, trajectory: Trajectory, batch: int) -> float:
        """err(empty prompt)."""
        return mean_of(self.errors_of_nothing(states, trajectory, batch))

    def _guided(
        self,
        side: Side,
        other: Side,
        guidance_scale: float,
        seeds: Sequence[int],
        see: Callable[[States], None],
        until: int | None,
    ) -> Callable[[Tensor, Tensor, int], Tensor]:
        """u + scale * (c - u), whichever of the two the embedding replaces."""
        seed = torch.tensor(seeds, device=self.model.device)  # (S,)
        cond, uncond = (other, side) if self.task.negative else (side, other)
        alike = side.same_as(other)  # then guidance is nothing, and one prediction serves for both

        def denoise(x: Tensor, sigma: Tensor, evaluation: int) -> Tensor:
            if until is not None and evaluation >= until:
                return x
            if alike:
                u = c = side.denoise(x, sigma, evaluation)
            else:
                u, c = both_sides(cond, uncond, x, sigma, evaluation)
            target, theirs = (u, c) if self.task.negative else (c, u)
            see(States(x, sigma, target, theirs, torch.full_like(seed, evaluation), seed))
            return u + guidance_scale * (c - u)

        return denoise
