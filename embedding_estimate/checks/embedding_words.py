"""Words in prompts that look like names of embeddings that are not loaded. Hosts read these as plain words."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NETWORK = re.compile(r"<\w+:[^<>]*>")
_WORD = re.compile(r"[\w.-]+")
_SHAPES = re.compile(
    # bad-hands-5, badhandv4, bad_prompt_version2
    r"bad[_-]?(?:anatomy|artist|eye|face|feet|hand|image|picture|prompt|quality)s?[a-z_-]*\d[\w.-]*"
    r"|[a-z][\w.-]*[_-]v\d[\w.-]*"  # ng_deepnegative_v1_75t, verybadimagenegative_v1.3
    r"|[a-z][\w.-]*[_-]\d+[tv]"  # bad-picture-chill-75v
    r"|[a-z][a-z\d]*negative(?:v\d|xl)?[\w.-]*|negative(?:v\d|xl)[\w.-]*"  # EasyNegative, negativeXL_D
    r"|[\w.-]+[_-]neg(?:ative)?\d*(?:[_-]\w+)?"  # CyberRealistic_Negative, negative_hand-neg
)
_FILES = """
    aidv1.0-neg aissist-neg bad-artist bad-artist-anime bad_pictures baddream boring_e621 easynegativev2 fastnegativev2
    fcneg juggernautneg pureerosface_v1 ulzzang-6500 unaestheticxl unaestheticxlv31 unrealisticdream zpdxl zpdxl2 zpdxl3
"""
LONGEST = 100  # characters of a word that may be a name
FILES = frozenset(_FILES.split())  # widely used names without such a shape
_ORDINARY = re.compile(r"(?:non|double|photo|film)[_-]negative|negative[_-]space|(?:sero|photo)negative")


def missing(prompts: Iterable[str], names: Iterable[str]) -> list[str]:
    """The words in the prompts that look like the name of an embedding but are none of these `names`, each once."""
    known = {name.casefold() for name in names}
    words = dict.fromkeys(word.strip(".-") for prompt in prompts for word in _WORD.findall(_NETWORK.sub(" ", prompt)))
    return [word for word in words if _looks_like_one(word.casefold()) and word.casefold() not in known]


def _looks_like_one(word: str) -> bool:
    if word in FILES:
        return True
    return len(word) <= LONGEST and _SHAPES.fullmatch(word) is not None and _ORDINARY.fullmatch(word) is None
