"""The settings of one estimate: the table of parameters, what their values mean together, and whether that is sound."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedding_estimate import optimizers
from embedding_estimate.errors import SettingsError
from embedding_estimate.files import names
from embedding_estimate.settings.choices import ALONE, BY_EFFORT, EFFORTS
from embedding_estimate.settings.contradictions import contradictions
from embedding_estimate.settings.parameters import lines, read
from embedding_estimate.settings.table import PARAMETERS, Table


@dataclass(frozen=True)
class Settings(Table):
    """The settings of one estimate. `check` says everything that is wrong with them at once.

    >>> Settings(text="(red:1.5) circle", name="red-disc").check()
    """

    @property
    def optimizer_used(self) -> str:
        """The optimizer's name, `optimizers.AUTOMATIC` resolved for this part."""
        if self.optimizer != optimizers.AUTOMATIC:
            return self.optimizer
        return optimizers.BY_PART.get(self.part, "Adam")

    @property
    def measure_used(self) -> str:
        """What is measured, `BY_EFFORT` resolved."""
        return EFFORTS[self.effort] if self.measure == BY_EFFORT else self.measure

    @property
    def negative(self) -> bool:
        """Whether the embedding is for the negative prompt."""
        return self.prompt_type == "Negative Prompt"

    @property
    def other_prompts(self) -> tuple[str, ...]:
        """The other side's texts, at least one, perhaps the empty one."""
        return lines(self.other_prompt) or ("",)

    @property
    def template_list(self) -> tuple[str, ...]:
        """The user's, or for use alone the bare one; none where the model's contexts are taken."""
        return lines(self.templates) or (("{}",) if self.use == ALONE else ())

    def problems(self) -> list[str]:
        """One line for each thing that is wrong; empty when all is well. The model is not asked."""
        wrong = {p.name: line for p in PARAMETERS if (line := p.problem(getattr(self, p.name)))}

        def sound(*fields: str) -> bool:
            """Whether their values make sense by themselves, without which there is nothing to contradict."""
            return wrong.keys().isdisjoint(fields)

        named = names.problems(self.name) if sound("name") else []
        return [*wrong.values(), *contradictions(self, sound), *named]

    def check(self) -> None:
        """Raises `SettingsError` with every problem found."""
        if problems := self.problems():
            raise SettingsError(problems)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from a form, a file or a request. Raises what `parameters.read` does; `check` judges all else."""
        return cls(**read(values, PARAMETERS))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
