"""What to try where a result is poor."""

from typing import Any

import pytest

from embedding_estimate.settings import PARAMETERS, Settings
from embedding_estimate.ui.next_steps import MOST, next_steps

LABELS = {parameter.name: parameter.label for parameter in PARAMETERS}


def figures(among_words: float | None, alone: float | None) -> dict[str, float | None]:
    return {
        "emphasis_in_context": among_words,
        "explained_in_context": 0.8,
        "emphasis_explained": alone,
        "explained": 0.8,
    }


def steps(among_words: float | None, alone: float | None, *, in_webui: bool = False, **settings: Any) -> list[str]:
    """The settings that they are about, in their order; a line about none as it is."""
    lines = next_steps(Settings(text="(red:1.5) circle", **settings), figures(among_words, alone), in_webui)
    assert len(lines) <= MOST
    return [_about(line) for line in lines]


def _about(line: str) -> str:
    for name, label in LABELS.items():
        if line.startswith((f"Set {label} to ", f"Fill {label} with ")):
            return name
    return line


@pytest.mark.parametrize(
    ("expected", "reached", "settings"),
    [
        ([], (0.6, -1.0), {}),  # it is made for among other words, and close there
        ([], (-1.0, 0.6), {"use": "Alone"}),
        (["use", "words", "templates"], (0.2, 0.7), {}),
        (["words", "templates", "typed_weight"], (0.2, 0.3), {}),
        (["templates", "part"], (0.2, 0.3), {"words": "One per weight"}),
        (["part", "words", "templates"], (0.2, 0.3), {"part": "Transformer"}),
        (["words", "typed_weight", "part"], (0.9, 0.3), {"use": "Alone"}),
        (["words", "typed_weight", "part"], (0.2, 0.3), {"templates": "a {}"}),
    ],
)
def test_the_settings_that_help(expected: list[str], reached: tuple[float, float], settings: dict[str, Any]) -> None:
    assert steps(*reached, **settings) == expected


def test_the_prompt_itself_is_better_than_what_is_worse() -> None:
    typed, *rest = steps(-0.1, 0.3)
    assert typed == "Type the prompt itself. Even without weights its words come closer." and rest == [
        "words",
        "templates",
    ]


def test_other_numbers_of_vectors_help_a_prompt_without_weights() -> None:
    lines = next_steps(Settings(text="red circle", tokens=1), figures(None, None), in_webui=False)
    assert "Press How many tokens? to see how close other numbers of vectors come." in lines


def test_a_webui_has_prompts_to_train_in() -> None:
    lines = next_steps(Settings(text="(a:1.5)", words="One per weight"), figures(0.2, 0.3), in_webui=True)
    assert "Press From my prompts below Training contexts. It is then trained in prompts like yours." in lines


@pytest.mark.usefixtures("brief")
def test_nothing_is_said_of_what_is_not_measured() -> None:
    assert next_steps(Settings(text="a"), {}, in_webui=True) == []
