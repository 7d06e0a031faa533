"""What settings offer to choose from."""

from __future__ import annotations

PARTS = ("Attention", "Attention + U-Net", "U-Net", "Transformer")
PROMPT_TYPES = ("Prompt", "Negative Prompt")
TOKEN_SOURCES = ("Number", "Initial prompt")
FORMATS = ("safetensors", "pt")
AMONG_WORDS, ALONE = USES = ("Among other words", "Alone")
ONE_WORD, WORD_PER_WEIGHT, FEW_WORDS = WORDS = ("One", "One per weight", "As few as needed")

BY_EFFORT, QUICK_WITH_IMAGES, QUICK, FULL_WITH_IMAGES, FULL, NOTHING = MEASURES = (
    "By effort",
    "Quick with images",
    "Quick",
    "Full with images",
    "Full",
    "Nothing",
)

EFFORTS = {"Quick": QUICK, "Balanced": QUICK_WITH_IMAGES, "Thorough": FULL_WITH_IMAGES}
"""How much work goes into an estimate, and what is measured of it."""
