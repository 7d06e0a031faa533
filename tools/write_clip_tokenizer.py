"""Write CLIP's tokenizer as transformers reads it, from the vocabulary file of the open_clip package.

    python tools/write_clip_tokenizer.py bpe_simple_vocab_16e6.txt.gz embedding_estimate/demo/shapes/tokenizer

The byte-pair encoding is that of Radford et al., "Learning Transferable Visual Models From Natural
Language Supervision" (2021): 256 bytes, the same 256 ending a word, 48,894 merges and two special
tokens, 49,408 tokens in all.
"""

import argparse
import gzip
import json
from pathlib import Path

MERGES = 49_408 - 2 * 256 - 2
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_symbols() -> list[str]:
    """One printable character for each byte, in the vocabulary's order: printable bytes come first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = range(256 - len(printable))
    return [chr(code) for code in printable] + [chr(256 + offset) for offset in others]


def write_tokenizer(vocabulary: Path, directory: Path, pad_token: str = END) -> None:
    """Write vocab.json, merges.txt and the configuration of a CLIPTokenizer."""
    lines = gzip.decompress(vocabulary.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : MERGES + 1]  # the first line is a version
    symbols = byte_symbols()
    tokens = symbols + [symbol + "</w>" for symbol in symbols]
    tokens += ["".join(merge.split()) for merge in merges] + [START, END]

    directory.mkdir(parents=True, exist_ok=True)
    numbered = {token: number for number, token in enumerate(tokens)}
    _write_text(directory / "vocab.json", json.dumps(numbered, ensure_ascii=False))
    _write_text(directory / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad_token}
    _write_text(directory / "special_tokens_map.json", json.dumps(special, indent=2) + "\n")
    config = {**special, "model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    _write_text(directory / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    write_tokenizer(arguments.vocabulary, arguments.directory)
