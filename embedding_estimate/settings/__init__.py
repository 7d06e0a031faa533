"""Every parameter of an estimate: type, bounds, default, texts and checks. Importing it loads nothing heavy."""

from embedding_estimate.settings.choices import ALONE, AMONG_WORDS, FEW_WORDS, ONE_WORD, USES, WORD_PER_WEIGHT, WORDS
from embedding_estimate.settings.parameters import Parameter
from embedding_estimate.settings.table import (
    FORMATS,
    LONGEST_NAME,
    LONGEST_PROMPT,
    MEASURES,
    MOST_LINES,
    PARAMETERS,
    PARTS,
    PROMPT,
    PROMPT_TYPES,
    SEED_LIMIT,
    TOKEN_SOURCES,
    Settings,
)

__all__ = [
    "ALONE",
    "AMONG_WORDS",
    "FEW_WORDS",
    "FORMATS",
    "LONGEST_NAME",
    "LONGEST_PROMPT",
    "MEASURES",
    "MOST_LINES",
    "ONE_WORD",
    "PARAMETERS",
    "PARTS",
    "PROMPT",
    "PROMPT_TYPES",
    "SEED_LIMIT",
    "TOKEN_SOURCES",
    "USES",
    "WORDS",
    "WORD_PER_WEIGHT",
    "Parameter",
    "Settings",
]
