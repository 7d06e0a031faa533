"""torch's pickles as descriptions: what torch saves is read, and nothing small makes much."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.files import embedding
from embedding_estimate.files.formats import SINGLE, pickled

TENSOR = torch.randn(2, 8)
BEGIN = b"\x80\x02"
MANY = 2_000_000
LEAST = 24 * 2**20  # bytes; the file itself, a copy of it and what Python needs besides


def globally(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def zipped(pickle: bytes, path: Path, packing: int = zipfile.ZIP_STORED, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in {"data.pkl": pickle, "version": b"3\n", **entries}.items():
            archive.writestr(f"a/{name}", content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(EmbeddingError) as caught:
        embedding.read(path)
    return str(caught.value).removeprefix(f"{path.name}: ")


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """Bytes that Python has held at once since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("zipped", [True, False])
def test_all_that_torch_saves_of_a_tensor_is_found_again(tmp_path: Path, zipped: bool) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "views": whole[1:3, 2:],
        "transposed": whole.T,
        "expanded from one row": torch.arange(3.0).expand(1, 3),
        "half": whole.half(),
        "double": whole.double(),
        "brain": whole.bfloat16(),
        "parameter": torch.nn.Parameter(whole),
        "flat": whole[0],
    }
    for number, tensor in enumerate(tensors.values()):
        path = tmp_path / f"{number}.pt"
        beside = {"string_to_token": {"*": torch.tensor(265)}, "step": 3, "size": whole.numel(), "rate": 0.5}
        torch.save(beside | {"string_to_param": {"*": tensor}}, path, _use_new_zipfile_serialization=zipped)
        expected = tensor.detach().float().reshape(-1, tensor.shape[-1])
        assert torch.equal(embedding.read(path).vectors[SINGLE], expected)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("step", [np.int64(3), np.float32(0.5), np.float64(2)])
def test_a_number_of_numpy_is_in_nobodys_way(tmp_path: Path, zipped: bool, step: object) -> None:
    path = tmp_path / "mine.pt"
    torch.save({"string_to_param": {"*": TENSOR}, "step": step}, path, _use_new_zipfile_serialization=zipped)
    assert torch.equal(embedding.read(path).vectors[SINGLE], TENSOR)


def test_a_number_of_an_older_numpy(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": TENSOR}, "step": np.int64(3)}, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as archive:
        data, numbers = archive.read("new/data.pkl"), archive.read("new/data/0")
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path = zipped(old, tmp_path / "old.pt", zipfile.ZIP_STORED, **{"data/0": numbers})
    assert torch.equal(embedding.read(path).vectors[SINGLE], TENSOR)


def test_other_objects_of_numpy_are_named(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": TENSOR}, "step": np.ones(2)}, tmp_path / "mine.pt")
    assert "multiarray._reconstruct, which may be code and was not read; get another copy" in refused(
        tmp_path / "mine.pt"
    )


@pytest.mark.parametrize(
    "operations",
    [b"}", b"]", b"(", b")\x85", b"N", b"K\1", b"}q\0", b"Nr\xff\xff\xff\x0f", b"h\0)R", b"h\0)\x81"],
    ids=["dicts", "lists", "marks", "nested", "none", "numbers", "memo", "far memo", "called", "made"],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_pickle_of_many_steps_takes_no_memory(
    tmp_path: Path, peak: Callable[[], int], operations: bytes, first: bool
) -> None:
    data = BEGIN + globally("collections", "OrderedDict") + b"q\0" + operations * (MANY // len(operations)) + b"."
    path = tmp_path / "mine.pt"
    if first:
        path.write_bytes(pickled.FIRST_LAYOUT + BEGIN + b"M\xe9\x03." + BEGIN + b"}." + data)
    else:
        zipped(data, path)
    before = peak()
    assert "more parts than an embedding" in refused(path)
    assert peak() - before < LEAST


def test_copies_of_copies(tmp_path: Path, peak: Callable[[], int]) -> None:
    entries = b"".join(b"K" + bytes([n % 256]) + b"N" for n in range(2000))
    for function in (globally("collections", "OrderedDict"), globally("torch.nn.modules.container", "ParameterDict")):
        for copy in (b"h\1h\0\x85R", b"h\1)\x81h\0b"):
            path = zipped(BEGIN + b"}(" + entries + b"uq\0" + function + b"q\1" + copy * 1500 + b".", tmp_path / "m.pt")
            before = peak()
            refused(path)
            assert peak() - before < LEAST


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (globally("__builtin__", "bytearray") + b"J\xff\xff\xff\x7f\x85R", "__builtin__.bytearray"),
        (globally("torch", "FloatTensor") + b"J\xff\xff\xff\x7f\x85R", "torch.FloatTensor"),
        (globally("torch", "zeros") + b"J\xff\xff\xff\x7f\x85R", "torch.zeros"),
        (globally("os", "mkdir") + b"X\x01\x00\x00\x00x\x85R", "os.mkdir"),
        (globally("os", "\x1b[2J" + "x" * 100), r"os.\x1b[2J" + "x" * 20),
    ],
)
def test_what_a_file_wants_to_call_is_named_and_not_called(
    tmp_path: Path, peak: Callable[[], int], made: bytes, name: str
) -> None:
    path = zipped(BEGIN + made + b".", tmp_path / "mine.pt")
    line = refused(path)
    assert (
        f"holds {name}" in line
        and "which may be code and was not read; get another copy" in line
        and "\x1b" not in line
        and len(line) < 120
    )
    assert peak() < LEAST


def rebuilt(shape: bytes, stride: bytes, key: bytes = b"0") -> bytes:
    """A dict of one tensor over a storage of 16 bytes."""
    storage = b"(X\7\0\0\0storage" + globally("torch", "FloatStorage") + b"X\1\0\0\0" + key + b"X\3\0\0\0cpuK\4tQ"
    made = globally("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + b"K\0" + shape + stride + b"\x89}tR"
    return BEGIN + b"}X\1\0\0\0a" + made + b"s."


HUGE = b"\x8a\xff" + b"\x7f" * 255


@pytest.mark.parametrize(
    ("shape", "stride", "key", "expected"),
    [
        (b"K\x02K\x02\x86", b"K\x02K\x01\x86", b"0", "(2, 2)"),
        (b"J\xff\xff\xff\x7fK\x01\x86", b"K\x01K\x01\x86", b"0", "claims more numbers"),
        (b"K\x02K\x02\x86", b"K\x7fK\x01\x86", b"0", "damaged"),
        (b"K\x02J\xff\xff\xff\xff\x86", b"K\x02K\x01\x86", b"0", "damaged"),
        (b"(" + HUGE * 4000 + b"t", b")", b"0", "4000 dimensions"),
        (b"N", b"N", b"0", "damaged"),
        (b"K\x02K\x02\x86", b"K\x02K\x01\x86", b"1", "damaged"),
    ],
)
def test_claims_of_a_tensor(tmp_path: Path, shape: bytes, stride: bytes, key: bytes, expected: str) -> None:
    path = zipped(
        rebuilt(shape, stride, key),
        tmp_path / "mine.pt",
        zipfile.ZIP_STORED,
        **{"data/0": struct.pack("<4f", 1, 2, 3, 4)},
    )
    if expected == "(2, 2)":
        assert embedding.read(path).vectors[SINGLE].tolist() == [[1, 2], [3, 4]]
    else:
        assert expected in refused(path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packed_entries_are_not_unpacked(tmp_path: Path, packing: int, peak: Callable[[], int]) -> None:
    assert "unpacks to" in refused(zipped(BEGIN + b"N" * 10**7 + b".", tmp_path / "mine.pt", packing))
    random = torch.randint(256, (1000,), dtype=torch.uint8).numpy().tobytes()  # which does not get smaller
    assert "unpacks to" in refused(zipped(random, tmp_path / "mine.pt", packing))


def test_entries_that_lie_over_each_other(tmp_path: Path) -> None:
    """Central entries that all point to the same bytes, after D. Fifield's "A better zip bomb" (2019)."""
    path = zipped(BEGIN + b"N" * 10**6 + b".", tmp_path / "mine.pt")
    data = path.read_bytes()
    start = data.index(b"PK\1\2")
    entry = data[start : data.index(b"PK\1\2", start + 1)]
    directory, end = entry * 8, bytearray(data[data.index(b"PK\5\6") :])
    end[8:20] = struct.pack("<HHII", 8, 8, len(directory), start)
    path.write_bytes(data[:start] + directory + end)
    assert "unpacks to" in refused(path)


def test_a_long_list_of_entries_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {str(number): b"" for number in range(pickled.MOST_ENTRIES)}
    path = zipped(BEGIN + b"}.", tmp_path / "mine.pt", zipfile.ZIP_STORED, **many)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *arguments: pytest.fail("opens it"))
    assert "more entries than an embedding" in refused(path)


def test_zips_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mine.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "is a zip file that torch has not written; choose an embedding file" in refused(tmp_path / "mine.pt")
    path = zipped(rebuilt(b"K\x02K\x02\x86", b"K\x02K\x01\x86"), tmp_path / "big.pt", byteorder=b"big")
    assert "big-endian" in refused(path)


@pytest.mark.parametrize("count", [-1, 2**40, 2**62])
def test_the_first_layout_with_a_wrong_number_of_numbers(tmp_path: Path, count: int) -> None:
    file = io.BytesIO()
    torch.save({"word": TENSOR}, file, _use_new_zipfile_serialization=False)
    data, size = file.getvalue(), TENSOR.numel() * 4
    (tmp_path / "mine.pt").write_bytes(data[: -size - 8] + struct.pack("<q", count) + data[-size:])
    assert "damaged" in refused(tmp_path / "mine.pt")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_torch_has_not_written(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "mine.pt").write_bytes(pickle.dumps({"word": [1.0, 2.0]}, protocol))
    assert "is damaged or is not an embedding; get another copy" in refused(tmp_path / "mine.pt")
