"""The slots of a template: where vectors stand in it."""

from __future__ import annotations

import re
from collections.abc import Iterable

SLOT = re.compile(r"\{(?:(?P<first>\d+):(?P<last>\d+))?\}")  # `{}`, or `{first:last}` for some of the vectors
PRIVATE = range(0xF0000, 0x10FFFE)  # Unicode's private planes, more characters than a template may have


def marks(template: str, slots: Iterable[str]) -> dict[str, str]:
    """A character for each of the slots, each of them once, that the template does not have: it can be no other text.

    >>> [hex(ord(mark)) for mark in marks("a {} \\U000f0000", ["{}"]).values()]
    ['0xf0001']
    """
    used = set(template)
    vacant = (mark for code in PRIVATE if (mark := chr(code)) not in used)
    return {slot: next(vacant) for slot in slots}
