"""Syntax of other programs in a prompt, and what to type instead. A WebUI reads such syntax as plain words.

Such text is valid but almost never meant that way. Each kind of syntax gets one line, about its first occurrence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

LONGEST_QUOTE = 40  # characters of a prompt in one note
NOVELAI_STEP = 1.05  # the weight of one pair of braces
COMPEL_UP, COMPEL_DOWN = 1.1, 0.9  # the weight of one plus or minus sign

_ASCII = str.maketrans({chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)})  # of full-width characters
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_LETTER = r"[^\W\d_]"

_ESCAPED = re.compile(r"\\.", re.DOTALL)
_NETWORK = re.compile(r"<\w+:[^<>]*>")
_WEIGHT_BEFORE_BRACKET = re.compile(rf":\s*{_NUMBER}\s*(?=[)\]])")  # of emphasis and of schedules
_BRACKETS = re.compile(r"[()\[\]]")
_AND = re.compile(r"\bAND\b")
_PART_WEIGHT = re.compile(rf":\s*{_NUMBER}\s*$")
_INFOTEXT = re.compile(r"^[ \t]*(?:Negative prompt:|Steps: \d+(?=, \w))|\bSteps: \d+(?=, Sampler:)", re.MULTILINE)


@dataclass(frozen=True)
class Syntax:
    """One kind of foreign syntax."""

    pattern: re.Pattern[str]
    meaning: str  # what it is in the other program
    instead: Callable[[re.Match[str]], str]  # what to do about it here

    def note(self, prompt: str) -> str | None:
        match = self.pattern.search(prompt)
        if match is None:
            return None
        return f"{quoted(match[0].strip())} is read as words here ({self.meaning}): {self.instead(match)}"


def _typed(text: str, weight: str) -> str:
    return f"type ({quoted(text)}:{weight})"


def _powers(match: re.Match[str]) -> str:
    base = COMPEL_UP if match["signs"][0] == "+" else COMPEL_DOWN
    return _typed(match["text"].strip("()"), f"{base ** len(match['signs']):.3g}")


def _in_ascii(match: re.Match[str]) -> str:
    text = quoted(match[0].translate(_ASCII))
    return f"type {text}" if text[0] in "([{" else f"type ({text})"


# Every pattern takes linear time: none begins with a run that another start would scan again, and none
# divides a run between two of its parts.
IN_BRACKETS: tuple[Syntax, ...] = (  # searched in the whole prompt
    Syntax(
        re.compile(
            "\uff08[^\uff08\uff09]*\uff09?|\uff3b[^\uff3b\uff3d]*\uff3d?|\uff5b[^\uff5b\uff5d]*\uff5d?"
            r"|(?<!\w)\w{1,40}\uff1a\s*\d+[.\uff0e]\d+"  # digits of any width
        ),
        "its brackets or colons are full-width",
        _in_ascii,
    ),
    Syntax(
        re.compile(r"\((?P<text>[^():]*):\s*(?P<whole>\d+),(?P<rest>\d+)\s*\)"),
        "its weight has a comma",
        lambda match: _typed(match["text"], f"{match['whole']}.{match['rest']}"),
    ),
    Syntax(
        re.compile(r"\[(?P<text>[^\[\]]*:)\s*(?P<whole>\d+),(?P<rest>\d+)\s*\]"),
        "its number has a comma",
        lambda match: f"type [{quoted(match['text'])}{match['whole']}.{match['rest']}]",
    ),
    Syntax(
        re.compile(r"\((?P<text>[^()]+)\)(?P<weight>\d*\.\d+)(?![\w.])"),
        "InvokeAI writes the weight after the bracket",
        lambda match: _typed(match["text"], match["weight"]),
    ),
    Syntax(
        re.compile(rf"(?P<text>\([^()]+\)|(?<![\w+]){_LETTER}{{2,}})(?P<signs>\+{{2,}}|-{{2,}})(?=[\s,.;)\]]|$)"),
        "these signs are weights in InvokeAI and compel",
        _powers,
    ),
    Syntax(
        re.compile(r"(?P<text>\([^()]+\))(?P<signs>[+-])(?=[\s,.;)\]]|$)"),
        "this sign is a weight in InvokeAI and compel",
        _powers,
    ),
    Syntax(
        re.compile(r"(?<=[\w)])\.(?:and|blend|swap)\("),
        "compel joins prompts like this",
        lambda match: "write one prompt, or join the parts with AND",
    ),
    Syntax(
        re.compile(r"(?<!\w)(?:embedding|embed):(?P<name>[^\s,:()\[\]<>|]+)", re.IGNORECASE),
        "ComfyUI calls embeddings like this",
        lambda match: f"type {quoted(match['name'])} alone",
    ),
    Syntax(
        re.compile(r"\{[^{}|]*\|[^{}]*\}|\{\d*\$\$[^{}]*\}"),
        "Dynamic Prompts and ComfyUI pick one of the variants at random",
        lambda match: "type the one that you mean, or [a|b] to alternate between them at each step",
    ),
    Syntax(
        re.compile(r"(?<!\{)(?P<open>\{+)(?=\s*[^\s{}|$])(?P<text>[^{}|$]+)\}+"),
        "braces are NovelAI's emphasis",
        lambda match: _typed(match["text"], f"{NOVELAI_STEP ** len(match['open']):.3g}"),
    ),
    Syntax(
        re.compile(r"(?<!\w)__(?:[^\W_]|\*)[\w*/.-]{0,80}?__(?!\w)"),
        "a wildcard of another extension",
        lambda match: "type one of its words",
    ),
    Syntax(
        re.compile(r"(?<!\S)--(?:ar|aspect|stylize|s|v|version|niji|chaos|c|q|quality|style|no|seed|iw|w|h)(?= \S)"),
        "a Midjourney parameter",
        lambda match: "leave it out",
    ),
)

BARE: tuple[Syntax, ...] = (  # searched in the prompt without the WebUI's own weights and brackets
    Syntax(
        re.compile(rf"(?<![\w.])(?P<weight>{_NUMBER})::(?P<text>[^:,]+)::"),
        "NovelAI writes weights like this",
        lambda match: _typed(match["text"], match["weight"]),
    ),
    Syntax(
        re.compile(rf"(?<![\w-])(?P<text>[\w-]{{1,40}}) ?:: ?(?P<weight>{_NUMBER})"),
        "Midjourney writes weights like this",
        lambda match: _typed(match["text"], match["weight"]),
    ),
    Syntax(
        re.compile(rf"(?<![\w-])(?!f:)(?=[\d_-]*{_LETTER})(?P<text>[\w-]{{1,40}}):(?P<weight>\d*\.\d+)(?![\w:]|\.\d)"),
        "a weight needs round brackets",
        lambda match: _typed(match["text"], match["weight"]),
    ),
)


def notes(prompt: str, *, composed: bool) -> list[str]:
    """One line for each kind of foreign syntax in a prompt: what it is, which program it belongs to, what to type
    instead.

    `composed` says whether `AND` combines parts in this prompt. A part may then end in a weight.
    """
    if match := _INFOTEXT.search(prompt):
        return [
            f"{quoted(match[0].strip())} belongs to an image's infotext, and all of that is read as words here: use "
            "Read infotext in the tab or --infotext on the command line, or keep only the prompt"
        ]
    prompt = _NETWORK.sub(" ", _ESCAPED.sub(" ", prompt))
    bare = _bare(prompt, composed)
    lines = [*(syntax.note(prompt) for syntax in IN_BRACKETS), *(syntax.note(bare) for syntax in BARE)]
    return [note for note in lines if note is not None]


def _bare(prompt: str, composed: bool) -> str:
    """The prompt without the weights and brackets of the WebUI's own grammar."""
    prompt = prompt.translate(_ASCII)
    parts = _AND.split(prompt) if composed else [prompt]
    parts = [_PART_WEIGHT.sub("", part.rstrip()) for part in parts] if composed else parts
    return _BRACKETS.sub("", _WEIGHT_BEFORE_BRACKET.sub("", "\n".join(parts)))


def quoted(text: str) -> str:
    """A short piece of a prompt in one printable line, for a note."""
    line = "".join(character if character.isprintable() else " " for character in " ".join(text.split()))
    return line if len(line) <= LONGEST_QUOTE else f"{line[: LONGEST_QUOTE - 3]}..."
