"""Words that people use in prompts anyway. A prompt would call an embedding of such a name by accident.

There is no dictionary. An ordinary word is one that the tokenizer knows as a single token. Words of several tokens are
recognised by their shape or are in a short list of common tags.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_TAGS = """
    absurdres ahoge anthro artstation backlight backlit best-quality bestquality bioluminescent blue-eyes blue-hair
    body-paint bodysuit bokeh catgirl chiaroscuro chromatic-aberration cowboy-shot dakimakura danbooru deformed
    depth-of-field disfigured dutch-angle extremities fisheye fullbody grayscale greyscale hatsune heterochromia hi-res
    highres holographic hyperdetailed hyperrealistic impasto iridescent isekai isometric jpeg jpeg-artifacts kemono
    lens-flare line-art lineart linocut lo-fi long-hair looking-at-viewer low-poly lowres mecha multicolored multiview
    mutilated papercut photo-real photo-realistic photorealism photorealistic pixel-art pixiv red-eyes sci-fi short-hair
    side-view sundress sweatdrop tanlines thigh-highs thighhighs top-view twin-tails twintails uhd ukiyo-e ultradetailed
    upscaled vaporwave vignette water-color watermark wlop worst-quality worstquality
"""
TAGS = frozenset(_TAGS.split())
"""Of several tokens each, and of no shape that tells them. A hyphen stands for a blank and a low line too."""

FIRST = {"full", "half", "high", "low", "lower", "mid", "off", "one", "self", "semi", "three", "two", "upper", "wide"}
"""full-body, high-contrast"""

LAST = {"down", "eyed", "in", "off", "on", "out", "over", "through", "up"}
"""close-up, see-through, blue-eyed"""

BETWEEN = {"a", "and", "at", "by", "in", "n", "of", "on", "the", "to"}
"""black-and-white, head-to-toe, over-the-shoulder"""

ENDINGS = ("ed", "ing")
"""long-sleeved, good-looking; `red` and `ring` are shorter than `LONG`"""

LONG = 5  # letters

_NUMBER = re.compile(r"\d+(?:[.\-]\d+)*")
_COUNTED = re.compile(r"\d+\+?([^\W\d_]+)")  # 1girl, 6+girls, 8k, 35mm


def typed_anyway(name: str, is_word: Callable[[str], bool] = lambda word: True) -> bool:
    """Whether a name is a compound, a count or a tag that people type, such as t-shirt, close-up, 1girl or lowres.

    `is_word` says whether some letters are an ordinary word. This function does not look for plain words.
    """
    written = unicodedata.normalize("NFC", name).casefold()
    parts = re.split(r"[ _-]+", written)
    if _NUMBER.fullmatch(written) or "-".join(parts) in TAGS:
        return True
    if counted := _COUNTED.fullmatch(written):
        return is_word(counted[1])
    if not _compound(parts) or not all(part.isalpha() for part in parts):
        return False
    return all(is_word(part) for part in parts if not part.endswith(ENDINGS))  # participles are often several tokens


def _compound(parts: list[str]) -> bool:
    if len(parts) < 2 or not all(parts):
        return False
    first, *middle, last = parts
    if middle:
        return BETWEEN.issuperset(middle)
    participle = last.endswith(ENDINGS) and len(last) >= LONG and last != "embedding"  # which names end in
    return len(first) == 1 or first in FIRST or last in LAST or participle
