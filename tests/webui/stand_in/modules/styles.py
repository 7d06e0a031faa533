import csv
from pathlib import Path
from typing import NamedTuple


class PromptStyle(NamedTuple):
    name: str
    prompt: str | None
    negative_prompt: str | None
    path: str | None = None


class StyleDatabase:
    """Writes all of its styles to one file."""

    default_path = Path("no folder") / "styles.csv"

    def __init__(self, styles: dict[str, tuple[str, str]]) -> None:
        self.styles = {name: PromptStyle(name, *prompts) for name, prompts in styles.items()}

    def apply_styles_to_prompt(self, prompt: str, styles: list[str]) -> str:
        return ", ".join([prompt, *(self.styles[style].prompt for style in styles)])

    def apply_negative_styles_to_prompt(self, prompt: str, styles: list[str]) -> str:
        return ", ".join([prompt, *(self.styles[style].negative_prompt for style in styles)])

    def save_styles(self, path: str | None = None) -> None:
        with self.default_path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(PromptStyle._fields[:3])
            writer.writerows(style[:3] for style in self.styles.values())
