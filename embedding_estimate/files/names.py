"""Names of embeddings: which can be typed into a prompt and saved as a file, and which are free.

A prompt calls an embedding by its file's name without the extension. So a name has to pass the WebUI's prompt grammar
(comments, `AND`, schedules, emphasis, `BREAK`) as one piece of weight 1, and every file system has to accept it.
"""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from embedding_estimate.errors import EmbeddingError, NameTaken, SettingsError, few, printable, quoted
from embedding_estimate.files.everyday_words import typed_anyway

EXTENSIONS = (".safetensors", ".pt", ".bin")  # of the embedding files that are read here

LETTERS = string.ascii_lowercase  # that tell the words of one embedding apart

MAX_BYTES = 128  # eCryptfs, the narrowest file system in common use, takes 143 with the extension

GRAMMAR = {
    "(": "emphasis",
    ")": "emphasis",
    "[": "emphasis and schedules",
    "]": "emphasis and schedules",
    ":": "weights, schedules and extra networks",
    "|": "alternation",
    ",": "the end of a tag",
    "#": "a comment",
    "<": "extra networks",
    ">": "extra networks",
    "{": "the place of the embedding in a template",
    "}": "the place of the embedding in a template",
    "/": "folders",
    "\\": "folders and escapes",
    '"': "quotes, which file names may not have on Windows",
    "?": "wildcards, which file names may not have on Windows",
    "*": "wildcards, which file names may not have on Windows",
}

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file#naming-conventions
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)


def typed_name(name: str, weight: float) -> str:
    """What to type in a prompt for a name with a weight."""
    return name if weight == 1 else f"({name}:{weight:g})"


def phrase(names: Iterable[str], weights: Iterable[float]) -> str:
    """What to type in a prompt for several words, each with its own weight."""
    return " ".join(typed_name(name, weight) for name, weight in zip(names, weights, strict=True))


def of_words(name: str, number: int) -> list[str]:
    """The names of `number` words that share an embedding's vectors. A single word has the name itself."""
    return [f"{name}-{letter}" for letter in LETTERS[:number]] if number > 1 else [name]


def problems(name: str) -> list[str]:
    """Why an embedding cannot have this name, one line for each problem: the value, the rule, the way out."""
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        too_long = f"takes {size:,} bytes, and {MAX_BYTES} are allowed; shorten it"
        return [f"name={quoted(name)}: {too_long}"]
    if not name.strip():
        return [f"name={quoted(name)}: a prompt calls an embedding by its name; give it a name"]
    lines = (*_characters(name), *_ends(name), *_composition(name))
    return [f"name={quoted(name)}: {line}" for line in lines]


def _characters(name: str) -> Iterator[str]:
    for character in dict.fromkeys(name):
        if character in GRAMMAR:
            yield f"{character!r} stands for {GRAMMAR[character]}; leave it out"
        elif character != " " and (character.isspace() or unicodedata.category(character)[0] == "C"):
            yield f"the character {character!a} cannot be typed or seen; leave it out"


def _ends(name: str) -> Iterator[str]:
    if name != name.strip(" "):
        yield "prompts drop spaces before and after a name; leave them out"
    for word in dict.fromkeys(re.findall(r"\b(?:AND|BREAK)\b", name)):
        yield f"the word {word} splits a prompt; write {word.lower()}"
    if name.startswith("."):
        yield "files with a leading dot are hidden; leave the dot out"
    if name.lower().endswith(EXTENSIONS):
        yield "the file extension is added automatically; leave it out"
    if name.endswith("."):
        yield "Windows drops a dot at the end of a file name; leave the dot out"
    if RESERVED.match(name):
        yield "Windows reserves this name for a device; put another word in front"


def _composition(name: str) -> Iterator[str]:
    composed = unicodedata.normalize("NFC", name)
    if name != composed:
        yield f"accents are stored apart from their letters; use the composed form {quoted(composed)}"


def uncallable(name: str) -> str:
    """Why no prompt can call this name, as one line with a way out; empty if one can.

    For files of other tools. A name without `problems` can be called.
    """
    sign = next((character for character in name if character in "()[]\\#"), "")
    if not is_text(name):
        reason = "it is not text"
    elif not name.strip():
        reason = "nothing in it can be typed"
    elif sign:
        reason = f"{sign!r} stands for {GRAMMAR[sign]}"
    elif word := re.search(r"\b(?:AND|BREAK)\b", name):
        reason = f"the word {word[0]} splits a prompt"
    elif re.search(r"<\w+:[^>]+>", name):
        reason = f"'<' stands for {GRAMMAR['<']}"
    elif re.search(r":\s*[-+]?(\d+\.?|\d*\.\d+)\s*$", name):
        reason = "its end is read as a weight"
    else:
        return ""
    return printable(f"{name}: no prompt can call this name, because {reason}; rename the file")


def is_text(name: str) -> bool:
    """Whether a file's name is text in the system's encoding. Python represents other bytes as lone surrogates, which
    no tokenizer takes and UTF-8 cannot write."""
    return not re.search("[\ud800-\udfff]", name)


def warnings(name: str, token_ids: Callable[[str], list[int]], other_names: Iterable[str]) -> list[str]:
    """What may surprise somebody who types the name, one line for each.

    `token_ids` gives the tokenizer's ids of plain text without begin and end marks. Hosts look for the ids of every
    name anywhere in a prompt, the longest first.
    """
    ids = token_ids(name)
    if not ids:
        return [f"{name}: the tokenizer drops every character of it, so no prompt can call it; rename it"]
    lines = []
    if len(ids) == len(name.split()):
        lines.append(f"{name}: every prompt with these ordinary words would call it; choose a made-up name")
    elif typed_anyway(name, lambda word: len(token_ids(word)) == 1):
        lines.append(f"{name}: people use this in prompts, and each such prompt would call it; choose a made-up name")
    if " " in name:
        lines.append(f"{name}: ComfyUI cannot call a name with a space; write a hyphen")
    if token_ids(f"{name},")[: len(ids)] != ids:
        lines.append(f"{name}: a comma right after this name hides it; end the name in a letter or a digit")
    others = {other: token_ids(other) for other in filter(is_text, other_names) if _key(other) != _key(name)}
    collisions = [line for other, other_ids in others.items() if (line := _collision(name, ids, other, other_ids))]
    return lines + few(collisions, f"embeddings collide with {name} in this way; rename it")


def _collision(name: str, ids: list[int], other: str, other_ids: list[int]) -> str:
    """How two names collide in a prompt, as one line; empty if they do not."""
    if not other_ids:
        return ""
    other = printable(other)
    if ids == other_ids:
        return f"{name}: has the same tokens as {other}, so only one of them works; rename it"
    if other_ids[: len(ids)] == ids:
        return f"{name}: begins {other}, which is called instead if the rest of that name follows; rename it"
    if ids[: len(other_ids)] == other_ids:
        return f"{name}: begins with {other}, and is called instead if the rest of this name follows; rename it"
    return ""


def files(folder: Path) -> Iterator[Path]:
    """All files of a folder tree in a fixed order. Links are followed, as hosts do, but each real folder is
    read once."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link back up the tree
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(root, name) for name in sorted(names))


def taken(name: str, folder: Path) -> Path | None:
    """The first file in the tree with this name, in any case and with any extension. Previews count."""
    return next((file for file in files(folder) if _key(name) in _names(file)), None)


def beginning_alike(name: str, beside: Iterable[Path]) -> bool:
    """Whether a file has this name, or an embedding's name begins with the other's words so that they collide (see
    `warnings`)."""
    mine = _words(name)
    for file in beside:
        words = _words(file.stem) if file.suffix.lower() in EXTENSIONS else []
        if _key(name) in _names(file) or (words and words[: len(mine)] == mine[: len(words)]):
            return True
    return False


def target(
    name: str,
    folder: Path,
    *,
    extension: str = ".safetensors",
    overwrite: bool = False,
    tree: Path | None = None,
) -> Path:
    """The path for an embedding of this name. Call it before the work as well as after.

    A new name goes into the folder itself and must be new in the whole `tree` around it. With `overwrite`, the
    embedding of exactly this name and extension is replaced where it is; previews and descriptions beside it may stay.

    Raises SettingsError for a name with `problems`, EmbeddingError for a folder that cannot be written, and NameTaken
    if another file has the name or a folder is in the file's place.
    """
    if lines := problems(name):
        raise SettingsError(lines)
    if not folder.is_dir():
        raise EmbeddingError(f"{folder}: is not a folder; create it or choose another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EmbeddingError(f"{folder}: is not writable; change its permissions or choose another")
    path = folder / f"{name}{extension}"
    if path.exists() and not path.is_file():
        raise NameTaken(f"{name}: {path.name} exists and is not a file; choose another name or remove it")
    tree = tree or folder
    if not overwrite:
        if rival := taken(name, tree):
            raise NameTaken(f"{name}: {rival.relative_to(tree)} has this name already; choose another or overwrite it")
        return path
    rivals = [file for file in files(tree) if file.suffix.lower() in EXTENSIONS and _key(file.stem) == _key(name)]
    path = next((file for file in rivals if file.name == path.name), path)
    for rival in rivals:
        if rival != path:
            raise NameTaken(
                f"{name}: overwriting replaces {path.relative_to(tree)}, and {rival.relative_to(tree)} "
                "would still have the name; remove that file or choose another name"
            )
    return path


def _key(name: str) -> str:
    """A name as file systems and tokenizers compare it: composed accents, no case."""
    return unicodedata.normalize("NFC", name).casefold()


def _words(name: str) -> list[str]:
    """Roughly how CLIP's tokenizer divides a text: letters together, each digit and sign alone."""
    return re.findall(r"[^\W\d_]+|\d|_|[^\w\s]", _key(name))


def _names(file: Path) -> set[str]:
    """The names that a file takes. NAME.preview.png takes NAME and NAME.preview."""
    stem = _key(file.stem)
    return {stem, stem.removesuffix(".preview")}
