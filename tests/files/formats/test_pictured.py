"""Embeddings inside pictures, made here as AUTOMATIC1111 makes them."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.files import embedding
from embedding_estimate.files.formats import SINGLE, pictured

VECTORS = torch.randn(3, 8)


def described(vectors: torch.Tensor = VECTORS, **entries: object) -> bytes:
    param = {"*": {"TORCHTENSOR": vectors.tolist()}}
    return json.dumps({"string_to_token": {"*": 265}, "string_to_param": param, "step": 3, **entries}).encode()


def plain() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(1, 256, (16, 20, 3), np.uint8))


def with_text(path: Path, text: bytes, keyword: str = "sd-ti-embedding") -> Path:
    mark = PngInfo()
    mark.add_text("parameters", "a prompt")
    mark.add_text(keyword, text.decode())
    plain().save(path, pnginfo=mark)
    return path


def sequence(count: int) -> np.ndarray:
    numbers, state = [], 0
    for _ in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        numbers.append(state % 255)
    return np.array(numbers, np.uint8)


def with_pixels(path: Path, data: bytes, height: int = 16) -> Path:
    """Halves of bytes left and right of a picture, in the lower bits of bands whose higher bits show something."""
    packed = np.frombuffer(zlib.compress(data, 9), np.uint8)
    filled = np.resize(packed, -(-len(packed) // (3 * height)) * 3 * height)
    bands = []
    for half in (filled & 0x0F, filled >> 4):
        block = half.reshape(height, -1, 3) ^ (sequence(half.size) & 0x0F).reshape(height, -1, 3)
        bands.append(block | 0x50)
    black = np.zeros((height, 1, 3), np.uint8)
    Image.fromarray(np.concatenate([bands[0], black, np.asarray(plain()), black, bands[1]], axis=1)).save(path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(EmbeddingError) as caught:
        embedding.read(path)
    return str(caught.value)


def test_the_sequence_is_the_one_of_the_webui() -> None:
    """Its first numbers are those of the WebUI's own test."""
    assert sequence(8).tolist() == [253, 242, 127, 44, 157, 27, 239, 133]
    block = np.zeros((10, 100, 3), np.uint8)
    assert np.array_equal(pictured._halves(block), sequence(3000) & 0x0F)


def test_the_text_of_a_picture(tmp_path: Path) -> None:
    path = with_text(tmp_path / "picture.png", base64.b64encode(described(name="mine")))
    read = embedding.read(path)
    assert torch.equal(read.vectors[SINGLE], VECTORS) and read.name == "mine"


def test_the_pixels_of_a_picture(tmp_path: Path) -> None:
    path = with_pixels(tmp_path / "picture.png", described())
    read = embedding.read(path)
    assert torch.equal(read.vectors[SINGLE], VECTORS) and read.name == "picture"


@pytest.mark.parametrize("name", ["../up", "a\x1b", 7, "", "a" * 999])
def test_a_name_in_a_picture_that_cannot_be_one_is_left_alone(tmp_path: Path, name: object) -> None:
    path = with_text(tmp_path / "picture.png", base64.b64encode(described(name=name)))
    assert embedding.read(path).name == "picture"


def test_both_encoders_in_a_picture(tmp_path: Path) -> None:
    data = {
        key: {"TORCHTENSOR": torch.full((2, width), 0.5).tolist()} for key, width in (("clip_l", 6), ("clip_g", 10))
    }
    path = with_text(tmp_path / "picture.png", base64.b64encode(json.dumps(data).encode()))
    assert embedding.read(path).vectors["clip_g"].tolist() == [[0.5] * 10] * 2


def test_pictures_of_something_else(tmp_path: Path) -> None:
    plain().save(tmp_path / "plain.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "black.png")
    striped = np.full((16, 20, 3), 0xFF, np.uint8)
    striped[:, [5, 9]] = 0
    Image.fromarray(striped).save(tmp_path / "striped.png")
    for name in ("plain.png", "black.png", "striped.png"):
        assert "a picture without an embedding in it" in refused(tmp_path / name)
    assert "damaged" in refused(with_text(tmp_path / "text.png", b"!!!"))
    for length in (8, 30, 60, 400):
        (tmp_path / "cut.png").write_bytes((tmp_path / "plain.png").read_bytes()[:length])
        assert refused(tmp_path / "cut.png").startswith("cut.png: is damaged or is not an embedding; get another copy")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_picture_of_any_size_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    (tmp_path / "huge.png").write_bytes(pictured.SIGNATURE + head + chunk(b"IDAT", zlib.compress(bytes(10**6))))
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: pytest.fail("decodes it"))
    assert "without an embedding" in refused(tmp_path / "huge.png")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"[" * 100_000, "damaged"),
        (b'{"string_to_param": {"*": {"TORCHTENSOR": [[' + b"9" * 100_000 + b"]]}}}", "infinite"),
        (b'{"string_to_param": {"*": {"TORCHTENSOR": [[NaN]]}}}', "undefined"),
        (b'{"string_to_param": {"*": {"TORCHTENSOR": [[1], [1, 2]]}}}', "damaged"),
        (b'{"string_to_param": {"*": {"TORCHTENSOR": "1"}}}', "damaged"),
        (b'{"string_to_param": {"*": [[1]]}}', "holds *, which is not a tensor; choose an embedding file"),
        (b'{"string_to_param": {}}', "0 words"),
        (b"[]", "no named vectors"),
        (b"{}", "0 tensors"),
    ],
)
def test_texts_that_are_no_embeddings(tmp_path: Path, text: bytes, expected: str) -> None:
    assert expected in refused(with_text(tmp_path / "mine.png", base64.b64encode(text)))
    assert expected in refused(with_pixels(tmp_path / "pixels.png", text))


def test_a_long_text_is_not_read(tmp_path: Path) -> None:
    long = b" " * (pictured.MOST_JSON + 1000)
    assert "longer text" in refused(with_text(tmp_path / "mine.png", base64.b64encode(long)))
    assert "longer text" in refused(with_pixels(tmp_path / "pixels.png", long))


def test_a_folder_with_pictures(tmp_path: Path) -> None:
    with_text(tmp_path / "text.png", base64.b64encode(described()))
    with_text(tmp_path / "card.preview.png", base64.b64encode(described()))
    with_text(tmp_path / "bad.png", b"!!!")
    with_pixels(tmp_path / "pixels.png", described())
    plain().save(tmp_path / "lone.png")
    (tmp_path / "broken.png").write_bytes(pictured.SIGNATURE + b"no")
    torch.save({"word": VECTORS}, tmp_path / "file.pt")
    plain().save(tmp_path / "file.png")
    plain().save(tmp_path / "file.preview.png")
    found, skipped = embedding.read_folder(tmp_path)
    assert sorted(found) == ["file", "pixels", "text"]
    assert [path.name for path, _ in skipped] == ["bad.png", "card.preview.png"]
    assert "WebUIs skip .preview files; rename it" in skipped[1][1]


def test_the_picture_on_a_card_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"word": VECTORS}, tmp_path / "mine.pt")
    for name in ("mine.png", "mine.preview.png", "other.preview.png"):
        plain().save(tmp_path / name)
    monkeypatch.setattr(Image, "open", lambda *arguments, **options: pytest.fail("decodes it"))
    assert list(embedding.read_folder(tmp_path)[0]) == ["mine"]
