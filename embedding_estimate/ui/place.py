"""All that the tab asks of its surroundings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from embedding_estimate.jobs.jobs import Jobs


class Place(Protocol):
    """A WebUI, or the standalone app."""

    jobs: Jobs
    in_webui: bool  # whether txt2img is next door, so that a name can be put into its prompts

    def folder(self) -> str:
        """Where embeddings are saved, in words for the user."""
        ...

    def choices(self, parameter: str) -> Sequence[str]:
        """The names that a setting without choices of its own takes here, samplers for one; none: any text."""
        ...

    def defaults(self) -> Mapping[str, Any]:
        """What settings start from here, by name, where the place has a say in it."""
        ...

    def token_count(self, text: str) -> int:
        """How many tokens the loaded model counts in a prompt. Called while jobs run, so it waits for none.

        Raises `EstimateError` where they cannot be counted.
        """
        ...

    def name_warnings(self, name: str) -> Sequence[str]:
        """`names.warnings` of a name that may be taken, with the loaded model. Called while jobs run, so it waits for
        none.

        Raises `EstimateError` where there is no model.
        """
        ...

    def txt2img(self) -> Mapping[str, Any]:
        """The components of txt2img on the same page by an infotext's words for what they hold; none standalone."""
        ...

    def as_infotext(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values of these components as an infotext would have them, styles merged into the prompts."""
        ...

    def own_contexts(self, negative: bool) -> Sequence[str]:
        """The prompts that the host keeps of its user, of one side of the guidance, each with `{}` where an embedding
        would stand; none standalone."""
        ...

    def style_lists(self) -> Sequence[Any]:
        """The components on the same page that list the host's styles; none standalone."""
        ...

    def save_style(self, name: str, phrase: str, negative: bool) -> tuple[str, Sequence[str]]:
        """Saves a phrase as one of the host's styles, which overwrites none: a line of what was done, and the names of
        all styles. Never asked where the place is no WebUI.

        Raises `EstimateError` where it cannot be saved.
        """
        ...

    def infotext(self, text: str) -> Mapping[str, Any]:
        """What an infotext says, likewise: "Prompt", "Negative prompt", "Steps", "Size-1" and so on."""
        ...
