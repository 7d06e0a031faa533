"""Every parameter of an estimate: its type, bounds, default, words and checks. Nothing heavy is imported."""

from embedding_estimate.settings.parameters import Parameter
from embedding_estimate.settings.table import (
    ALONE,
    AMONG_WORDS,
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
    USES,
    WORDS,
    Settings,
)

__all__ = [
    "ALONE",
    "AMONG_WORDS",
    "FORMATS",
    "LONGEST_NAME",
    "LONGEST_PROMPT",
    "MEASURES",
    "MOST_LINES",
    "PARAMETERS",
    "PARTS",
    "PROMPT",
    "PROMPT_TYPES",
    "SEED_LIMIT",
    "TOKEN_SOURCES",
    "USES",
    "WORDS",
    "Parameter",
    "Settings",
]
