from typing import Any


class ExtraNetworksUi:
    """Where the page keeps the cards that it has drawn; drawn anew where there are none."""

    def __init__(self) -> None:
        self.pages_contents: list[Any] = []
