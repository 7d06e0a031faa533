"""Figures for tests of whatever shows some."""

from embedding_estimate.fidelity.protocol import Fidelity

FIGURES = Fidelity(
    protocol="v2",
    explained=0.9,
    emphasis_explained=0.5,
    explained_without_weights=0.8,
    explained_truncated=0.7,
    explained_in_context=0.85,
    explained_in_context_without_weights=0.75,
    emphasis_in_context=0.45,
    worst_context="a {}",
    contexts=(),
    standard_errors={
        "explained": 0.01,
        "emphasis_explained": 0.03,
        "explained_in_context": 0.015,
        "emphasis_in_context": 0.02,
    },
    image_distance=0.1,
    image_distance_without_weights=0.3,
    errors={},
)
