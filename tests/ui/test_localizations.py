"""Every translation has a text in the tab, and every text of the form a translation."""

import json
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the tab needs the package's 'app' extra")

from embedding_estimate.settings import PARAMETERS
from embedding_estimate.ui import form

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "localizations").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_localization_knows_the_form(path: Path) -> None:
    known = json.loads(path.read_text("utf-8"))
    asked = {text for parameter in PARAMETERS for text in (parameter.label, form.info(parameter))}
    assert asked <= known.keys()
    code = "".join(file.read_text("utf-8") for file in (ROOT / "embedding_estimate").rglob("*.py"))
    choices = {choice for parameter in PARAMETERS for choice in parameter.choices}
    for text in known.keys() - asked - choices:
        assert f'"{text}"' in code, text
