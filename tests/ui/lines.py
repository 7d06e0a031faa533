"""The lines that the tab may show, found in the source: each with {} where a value stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import embedding_estimate

PACKAGE = Path(embedding_estimate.__file__).parent
ELSEWHERE = {  # what these say is no part of the tab in a WebUI, or nothing at all
    "__init__.py",
    "__main__.py",
    "api.py",
    "app.py",
    "checks/embedding_words.py",
    "cli",
    "demo",
    "errors/out_of_memory.py",
    "fidelity/protocol.py",
    "files/embedding.py",
    "files/everyday_words.py",
    "files/formats",
    "files/tensor_tree.py",
    "hosts/attention.py",
    "hosts/standalone",
    "hosts/webui/options.py",
    "hosts/webui/use_warnings.py",
    "jobs/progress_bars.py",
    "model/contexts.py",
    "python_api",
    "reports",
    "storage/phrases.py",
    "ui/form.py",
    "ui/guard.py",
}
SETTING = "setting"  # what a parameter is declared with: the form shows it
LOGGED = ("debug", "info", "warning", "error", "exception", "logged")
WORD = re.compile(r"[A-Za-z]{2,}")


def lines() -> set[str]:
    """Those of at least three words, or of one beside a value."""
    here = [path for path in PACKAGE.rglob("*.py") if not _is_elsewhere(path.relative_to(PACKAGE).as_posix())]
    return {_whole(text) for path in here for text in _strings(path) if _speaks(text)}


def everything() -> set[str]:
    """All texts with values in them that are anywhere in the package, and all lines."""
    texts = {text for path in PACKAGE.rglob("*.py") for text in _strings(path) if text.strip()}
    return {_whole(text) for text in texts if "{}" in text or _speaks(text)}


def _is_elsewhere(place: str) -> bool:
    return any(place == other or place.startswith(f"{other}/") for other in ELSEWHERE)


def _speaks(text: str) -> bool:
    """Whether it is for people: no markup, style or pattern."""
    words = len(WORD.findall(text))
    readable = not any(sign in text for sign in ("<", '="', "\\"))
    return readable and " " in text.strip() and (words > 2 or (words > 0 and "{}" in text))


def _whole(text: str) -> str:
    """With {} for what is put before or behind it."""
    before = "{}" if text[0] in " ,;:" else ""
    return before + text.rstrip() + (" {}" if text[-1] == " " else "")


def _strings(path: Path) -> Iterator[str]:
    """Literals that are neither documentation, nor settings, nor for a log."""
    yield from _literals(ast.parse(path.read_text("utf-8")))


def _literals(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Call) and _called(node) in (SETTING, *LOGGED):
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        else:
            yield from _literals(node)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
