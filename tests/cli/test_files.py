"""The commands about embedding files: inspect, convert, compare, and names that cannot be called or shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from command_line import QUICK, Run, files, last
from toy import ToyHost

from embedding_estimate.fidelity import protocol
from embedding_estimate.files import embedding as embeddings
from embedding_estimate.files.embedding import SINGLE, Embedding, read

ORIGIN = {"settings": {"text": "(red:1.5)"}, "typed_weight": 1.2}
NO_TEXT = os.fsdecode(b"caf\xe9")


def save(name: str, folder: Path = Path(), tensor: torch.Tensor | None = None) -> Path:
    path = folder / f"{name}.safetensors"
    written = folder / "written.safetensors"
    embeddings.write(Embedding("x", {SINGLE: torch.ones(2, 6) if tensor is None else tensor}, ORIGIN), written)
    return written.rename(path)


# convert


@pytest.mark.parametrize(("given", "kind"), [("safetensors", "pt"), ("pt", "safetensors")])
def test_convert_keeps_vectors_and_provenance(run: Run, tmp_path: Path, given: str, kind: str) -> None:
    vectors = torch.randn(3, 6)
    embeddings.write(Embedding("mine", {"clip_l": vectors}, ORIGIN), tmp_path / f"mine.{given}")
    result = run("convert", f"mine.{given}", "--to", kind.upper())
    assert result.exit_code == 0, result.output
    assert result.stdout == f"mine.{kind}: 3 vectors, emb_params\n"
    assert f"Note: mine.{given} has the same name" in result.stderr
    made = read(tmp_path / f"mine.{kind}")
    assert torch.equal(made.vectors[SINGLE], vectors) and made.provenance == ORIGIN
    assert read(tmp_path / f"mine.{given}").provenance == ORIGIN


def test_convert_to_a_place(run: Run, tmp_path: Path) -> None:
    torch.save({"<word>": torch.ones(2, 6)}, tmp_path / "mine.bin")
    (tmp_path / "there").mkdir()
    assert run("convert", "mine.bin", "--to", "safetensors", "--out", "there").exit_code == 0
    result = run("convert", "mine.bin", "--to", "pt", "--out", "there/other.pt")
    assert result.exit_code == 0 and result.stderr == ""
    assert files(tmp_path / "there") == ["mine.safetensors", "other.pt"]
    assert torch.load(tmp_path / "there/other.pt", weights_only=True)["name"] == "other"
    wrong = run("convert", "mine.bin", "--to", "pt", "--out", "there/other.safetensors")
    assert wrong.exit_code == 2 and "does not end in .pt: give it that ending" in wrong.stderr


def test_convert_overwrites_only_when_told(run: Run, tmp_path: Path) -> None:
    path = save("mine")
    before = path.read_bytes()
    torch.save({"word": torch.zeros(1, 6)}, tmp_path / "mine.bin")
    refused = run("convert", "mine.bin", "--to", "safetensors")
    assert refused.exit_code == 2 and "mine.safetensors: exists" in refused.stderr and path.read_bytes() == before
    assert run("convert", "mine.bin", "--to", "safetensors", "--overwrite").exit_code == 0
    assert read(path).tokens == 1


def test_convert_says_what_a_format_cannot_hold(run: Run, tmp_path: Path) -> None:
    pair = {"clip_l": torch.ones(2, 6), "clip_g": torch.ones(2, 10), "clip_l_out": torch.ones(2, 6)}
    torch.save(pair, tmp_path / "mine.pt")
    result = run("convert", "mine.pt", "--to", "pt", "--out", "other.pt")
    assert result.exit_code == 2 and "SDXL has two; use .safetensors" in result.stderr
    assert run("convert", "mine.pt", "--to", "safetensors").stdout == "mine.safetensors: 2 vectors, clip_l and clip_g\n"
    assert files(tmp_path) == ["mine.pt", "mine.safetensors"]


# inspect


def test_inspect_shows_the_nearest_words(run: Run, toy_host: ToyHost, loads: list[dict], tmp_path: Path) -> None:
    table = toy_host.model.table
    vectors = torch.stack([7 * table[5], table[5] / table[5].norm() + 0.5 * table[9] / table[9].norm(), 0 * table[5]])
    save("mine", tensor=vectors)
    result = run("inspect", "mine.safetensors", "--model", "my/model", "--json")
    assert result.exit_code == 0, result.output
    assert loads[-1]["model"] == "my/model"
    first, second, zeros = last(result)["nearest"]["clip_l"]
    assert first[0] == {"word": "clip_l:5", "similarity": pytest.approx(1, abs=1e-5)} and len(first) == 5
    cosines = torch.nn.functional.cosine_similarity(vectors[1], table)
    best = cosines.topk(5)
    assert [word["word"] for word in second] == [f"clip_l:{index}" for index in best.indices]
    assert [word["similarity"] for word in second] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert zeros == []
    assert "clip_l 1" in result.stdout and "clip_l:5 1.00, " in result.stdout
    assert "nearest" not in last(run("inspect", "mine.safetensors", "--json"))
    wide = run("inspect", str(save("wide", tensor=torch.ones(1, 7))), "--model", "my/model")
    assert wide.exit_code == 2 and "vectors 7 wide" in wide.stderr


def test_inspect_calls_half_of_sdxl_by_its_name(run: Run, tmp_path: Path) -> None:
    torch.save({"clip_g": torch.ones(2, 10)}, tmp_path / "mine.pt")
    shown = run("inspect", "mine.pt").stdout
    assert (
        "  clip_g  " in shown
        and "typed as" not in shown
        and "half of an SDXL embedding: the clip_l vectors are missing; get the whole file" in shown
    )


# Names


@pytest.mark.parametrize(
    ("name", "reason"), [("BREAK", "the word BREAK splits a prompt"), ("no(paren)", "'(' stands for emphasis")]
)
def test_a_name_that_no_prompt_calls_is_said(
    run: Run, toy_host: ToyHost, tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "in").mkdir()
    path = str(save(name, tmp_path / "in"))
    line = f"{name}: no prompt can call this name, because {reason}; rename the file"
    inspected = run("inspect", path)
    assert line in inspected.stdout and "typed as" not in inspected.stdout
    assert f"Note: {line}" in run("compare", path, "(red:1.5)", "--measure", "full").stderr
    assert f"Note: {line}" in run("convert", path, "--to", "pt").stderr
    estimated = run("estimate", "(red:1.5)", "--name", "x1", *QUICK, "--embeddings", "in", "--measure", "Nothing")
    assert estimated.exit_code == 0 and f"Note: {line}" in estimated.stderr


def test_names_that_are_no_text_are_passed_over_with_a_word(run: Run, toy_host: ToyHost, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save(NO_TEXT, tmp_path / "in")
    save("good", tmp_path / "in")
    (tmp_path / "embeddings").mkdir()
    save(NO_TEXT, tmp_path / "embeddings")
    result = run("estimate", "(red:1.5)", *QUICK, "--embeddings", "in", "--measure", "Nothing", "--json")
    assert result.exit_code == 0, result.output
    assert r"Note: caf\udce9: no prompt can call this name, because it is not text" in result.stderr
    assert list(toy_host.added) == ["good"]
    shown = run("inspect", str(Path("in", f"{NO_TEXT}.safetensors")), "--json")
    assert shown.exit_code == 0 and shown.stdout.startswith(r"caf\udce9: takes 2") and last(shown)["name"] == NO_TEXT


def test_control_characters_in_names_do_not_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    name = "a\x1b[2J\x9b1m\u202eb\nc"
    path = save(name)
    results = [
        run("inspect", str(path)),
        run("compare", str(path), "(red:1.5)", "--measure", "Full"),
        run("convert", str(path), "--to", "pt"),
        run("convert", str(path), "--to", "pt"),
        run("inspect", f"{name}.bin"),
        run("estimate", "red", "--out", f"{name}.pt"),
        run("estimate", "red", "--embeddings", str(tmp_path), "--name", "x1", "--tokens", "1"),
    ]
    assert [result.exit_code for result in results] == [0, 0, 0, 2, 2, 2, 0]
    for result in results:
        assert r"a\x1b[2J\x9b1m\u202eb" in result.output
        assert not {"\x1b", "\x9b", "\u202e"} & set(result.output)


# compare


@pytest.mark.slow
def test_compare_measures_what_estimate_can(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, counts, measure = str(save("mine")), [], protocol.measure

    def counted(*arguments: object, images: int, **options: object) -> object:
        counts.append(images)
        return measure(*arguments, images=images, **options)

    monkeypatch.setattr(protocol, "measure", counted)
    for typed in ((), ("--measure", "FULL")):
        result = run("compare", path, "(red:1.5)", *typed, "--report", "r.png", "--json")
        assert result.exit_code == 0, result.output
        assert (last(result)["image_distance"] is None) == (typed != ())
    assert counts == [16, 0]
    for nothing in ("Nothing", "nothing"):
        result = run("compare", path, "(red:1.5)", "--measure", nothing)
        assert result.exit_code == 2 and "choose from Quick with images, Quick, Full with images" in result.stderr
    assert "Nothing" not in run("compare", "--help").stdout
