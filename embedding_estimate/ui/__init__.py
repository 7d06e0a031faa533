"""The tab: the same in a WebUI and standalone. `tab.build` makes it, `place.Place` is what it asks for."""

PREFIX = "embedding_estimate_"  # of every element id and CSS class: a page is shared by all extensions


def word(text: str) -> str:
    """Text apart from the numbers and names beside it: the WebUI translates only what is a piece by itself."""
    return f"<span>{text}</span>"
