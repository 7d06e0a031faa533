"""Reads the infotext that a WebUI writes into its images:

a prompt, of one line or more
Negative prompt: of one line or more
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 512x768, Lora hashes: "a: 1, b: 2"
"""

from __future__ import annotations

import re

# A word, and a value in which only quotes hold commas. Text without a colon is taken in one go: it would otherwise be
# read again from each of its characters.
PAIR = re.compile(r'([^:,]+)(?::((?:"[^"]*"|[^,"])*))?')
FEW = 3  # pairs; a line with fewer is part of a prompt
NEGATIVE = "Negative prompt:"


def parse(infotext: str) -> dict[str, str]:
    """The values by the infotext's own names, as the WebUI splits them: "Prompt", "Negative prompt", "Size-1", ..."""
    *lines, last = infotext.strip().split("\n")
    pairs = [(match[1].strip(), match[2].strip()) for match in PAIR.finditer(last) if match[2] is not None]
    if len(pairs) < FEW:
        lines, pairs = [*lines, last], []
    lines = [line.strip() for line in lines]
    split = next((index for index, line in enumerate(lines) if line.startswith(NEGATIVE)), len(lines))
    negative = "\n".join(line.removeprefix(NEGATIVE).strip() for line in lines[split:])
    values = {"Prompt": "\n".join(lines[:split]), "Negative prompt": negative}
    for word, value in pairs:
        size = re.fullmatch(r"(\d+)x(\d+)", value)
        values |= {f"{word}-1": size[1], f"{word}-2": size[2]} if size else {word: value}
    return values
