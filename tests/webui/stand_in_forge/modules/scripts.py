from typing import Any

AlwaysVisible = object()
scripts_data: list[Any] = []  # none strips comments: Forge's styles do


class Script:
    """What a script of an extension inherits."""
