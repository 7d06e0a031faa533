"""`estimate --infotext`: reads settings from the infotext that a WebUI writes into its images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedding_estimate.cli.notes import note
from embedding_estimate.errors import SettingsError
from embedding_estimate.hosts.standalone import infotext
from embedding_estimate.hosts.standalone.sampler_names import CHOICES
from embedding_estimate.ui import filling


def from_infotext(text: str, typed: Mapping[str, Any], *, negative: bool) -> dict[str, Any]:
    """The settings in an infotext; settings that were typed override them. A note says which were taken.

    The text to estimate is the infotext's negative prompt if `negative`.

    Raises `SettingsError` if the text is not an infotext.
    """
    parsed = infotext.parse(filling.bare(text))
    if not filling.is_infotext(parsed):
        raise SettingsError(
            [
                "--infotext: TEXT is not an infotext; give all lines that PNG Info shows for an image, also the one "
                "that begins with Steps:"
            ]
        )
    values, refused = filling.read(parsed, negative, lambda parameter: CHOICES.get(parameter, ()))
    others = {name: value for name, value in typed.items() if name != "text"}
    taken = [name for name in values if name not in others]
    note(f"taken from the infotext: {', '.join(taken)}")
    for line in refused:
        note(line)
    return {**values, **others}
