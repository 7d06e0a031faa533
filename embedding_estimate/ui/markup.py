"""Pieces of HTML that the tab is made of. Everything that somebody typed is escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from embedding_estimate.errors import printable
from embedding_estimate.ui import PREFIX

THUMBNAIL = 256  # pixels, the longer side: it comes with every answer


def section(state: str, body: str) -> str:
    """All that is known of a job in this state."""
    return f'<section class="{PREFIX}job" data-state="{state}">{body}</section>'


def small(text: str, label: str = "") -> str:
    """A quiet line; `label` is HTML already."""
    return f'<p class="{PREFIX}small">{label}{escape(printable(text))}</p>'


def items(lines: Sequence[str]) -> str:
    """Entries of a list."""
    return "".join(f"<li>{escape(line)}</li>" for line in lines)


def notes(lines: Sequence[str]) -> str:
    """What the user should know, one line each."""
    return f'<ul class="{PREFIX}notes">{items(lines)}</ul>' if lines else ""


def width(share: float) -> str:
    """The style of a bar that is filled up to this share."""
    return f"width: {min(max(share, 0), 1):.1%}"


def pictures(row: Mapping[str, Image.Image], caption: str) -> str:
    """Small pictures side by side, each with its name; `caption` is HTML already."""
    cells = "".join(
        f'<div><img alt="" src="{thumbnail(picture)}"><small>{name}</small></div>' for name, picture in row.items()
    )
    return f'<figure class="{PREFIX}preview">{cells}<figcaption>{caption}</figcaption></figure>'


def thumbnail(picture: Image.Image) -> str:
    """A small copy as a URL that holds it."""
    copy, data = picture.copy(), io.BytesIO()
    copy.thumbnail((THUMBNAIL, THUMBNAIL))
    copy.save(data, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def report(path: Path | None) -> str:
    """The picture of a result inside the page: so it needs no way of its own through the host's rules for files."""
    try:
        png = path.read_bytes() if path else b""
    except OSError:  # moved away since
        png = b""
    if not png:
        return ""
    data = base64.b64encode(png).decode()
    picture = f'<img alt="Figures, curves and same-seed images" src="data:image/png;base64,{data}">'
    return f'<button type="button" class="{PREFIX}report" data-embedding-estimate="open">{picture}</button>'
