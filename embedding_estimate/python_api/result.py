"""What `estimate` returns."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedding_estimate.estimation.trainer import Estimate
from embedding_estimate.fidelity import wording
from embedding_estimate.fidelity.protocol import Fidelity
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.model.host import Vectors
from embedding_estimate.model.meter import StagePasses
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage import phrases, saving

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """An embedding that was estimated, with all that is known of it.

    Example:
        >>> result = estimate("(red:1.5) circle", pipe, tokens=4)
        >>> print(result.phrase, result.figures.explained)
        >>> result.report().show()
        >>> result.save("red-disc")
    """

    settings: Settings
    estimate: Estimate  # losses, checks, times and counts, see `trainer.Estimate`
    pictures: Mapping[str, Sequence[Image]] = field(default_factory=dict)  # same-seed images by row of the report
    advice: Sequence[str] = ()  # on the settings, whatever the model

    @property
    def embedding(self) -> Embedding:
        """The embedding with its provenance."""
        return self.estimate.embedding

    @property
    def vectors(self) -> Vectors:
        """Encoder key (`clip_l`, `clip_g`) -> vectors (N, width) in fp32, on the CPU."""
        return self.embedding.vectors

    @property
    def figures(self) -> Fidelity | None:
        """How faithful the embedding is; None where it was stopped before, or with `measure="Nothing"`."""
        return self.estimate.fidelity

    @property
    def phrase(self) -> str:
        """What to type in a prompt: the name, or the words with their weights."""
        return self.estimate.phrase

    @property
    def notes(self) -> list[str]:
        """What you should know, one line each."""
        return list(dict.fromkeys([*self.advice, *self.estimate.notes]))

    @property
    def losses(self) -> list[float]:
        """The loss at each learning step; 1 is that of the first."""
        return self.estimate.losses

    @property
    def checks(self) -> list[tuple[int, float]]:
        """(learning step, explained) on held-out states."""
        return self.estimate.checks

    @property
    def passes(self) -> StagePasses:
        """The U-Net's passes of one latent each, forward and backward: to prepare, to train and to measure.

        Example:
            >>> result.passes.prepare.forwards, result.passes.total.backwards
        """
        return self.estimate.passes

    @property
    def stopped(self) -> str:
        """Why the training ended: "done", "early stop", "exact", "interrupted", "diverged", "out of memory" or
        "failed"."""
        return self.estimate.stopped

    def report(self) -> Image:
        """The figures, the curves and the same-seed images as one picture.

        Example:
            >>> result.report().save("red-disc-report.png")
        """
        from embedding_estimate.reports import report

        return report.draw(report.of_estimate(self.settings, self.estimate, self.pictures))

    def save(
        self,
        name: str | None = None,
        folder: str | Path = "embeddings",
        *,
        format: str | None = None,
        overwrite: bool | None = None,
    ) -> list[Path]:
        """Saves the embedding and returns its files: one, or with `words="One per weight"` one for each word.

        Args:
            name: the word to type in prompts, which is also the file's name; without one it is `embedding.name`.
            folder: the folder to save in; it is created if it does not exist.
            format: "safetensors" or "pt"; without one it is that of the settings.
            overwrite: whether to replace an embedding of that name; without it the settings decide.

        Raises:
            SettingsError: the name or the format cannot be used.
            NameTaken: the folder has an embedding of that name, and `overwrite` is off.
            EmbeddingError: the folder cannot be written.

        Example:
            >>> result.save("red-disc", "my-embeddings", overwrite=True)
            [PosixPath('my-embeddings/red-disc.safetensors')]
        """
        settings = replace(
            self.settings,
            name=self.embedding.name if name is None else name,
            format=self.settings.format if format is None else format,
            overwrite=self.settings.overwrite if overwrite is None else overwrite,
        )
        settings.check()
        embedding = phrases.renamed(self.embedding, settings.name)
        with saving.made(Path(folder)):
            files = saving.Result(settings, Path(folder), StopToken(), on_note=_warn)
            files.check(part.name for part in phrases.parts_of(embedding))
            return files.save(embedding)

    def __repr__(self) -> str:
        figures = f", explained {wording.number(self.figures.explained)}" if self.figures else ""
        return f"<Result {self.phrase}: {self.embedding.tokens} vectors, {self.stopped}{figures}>"

    def __str__(self) -> str:
        """The figures and notes as a text of several lines."""
        lines = [f"{self.embedding.tokens} vectors, {wording.typed_as(self.embedding.name, self.phrase)}"]
        for row in wording.rows(self.figures, self.embedding.tokens) if self.figures else ():
            label = f"  {row.label}" if row.baseline else row.label
            lines.append(f"  {label:<21}{row.number:<15} {row.meaning}")
        lines.append(f"{self.estimate.steps} steps ({self.stopped})")
        return "\n".join([*lines, *(f"note: {line}" for line in self.notes)])


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=4)  # where `save` was called
