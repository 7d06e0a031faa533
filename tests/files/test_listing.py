"""The short listing of a file has what the whole reading has, and refuses what that refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from shaking import shaken

from embedding_estimate.errors import EmbeddingError
from embedding_estimate.files import embedding, listing

HALVES = torch.randint(-100, 100, (5, 3), generator=torch.Generator().manual_seed(shaken(0))) / 8  # exact in all types
SAFETENSORS = tuple(int(part) for part in safetensors.__version__.split(".")[:2])
FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def save(tensor: torch.Tensor, path: Path) -> Path:
    if path.suffix == ".pt":
        torch.save({"string_to_param": {"*": tensor}, "name": "x"}, path)
    else:
        safetensors.torch.save_file({"emb_params": tensor.contiguous()}, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_type_of_float_is_read_exactly(tmp_path: Path, suffix: str, dtype: torch.dtype) -> None:
    """By columns too, as the view of a transposed tensor lies in a pickle."""
    path = save(HALVES.to(dtype).T, tmp_path / f"mine{suffix}")
    assert torch.equal(embedding.read(path).vectors["emb_params"], HALVES.T)
    listed = listing.read(path)
    assert (listed.name, listed.tokens, listed.widths) == ("mine", 3, {"emb_params": 5})
    assert listed.norms["emb_params"] == pytest.approx(HALVES.double().norm(dim=0).tolist(), rel=1e-12)


@pytest.mark.skipif(SAFETENSORS < (0, 4), reason="safetensors before 0.4 does not know them")
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_floats_that_only_torch_has(tmp_path: Path, dtype: torch.dtype) -> None:
    path = save(torch.tensor([[3.0, -4.0]]).to(dtype), tmp_path / "mine.safetensors")
    assert embedding.read(path).vectors["emb_params"].tolist() == [[3, -4]]
    assert listing.read(path).norms == {"emb_params": [5.0]}


def test_a_slice_of_a_pickled_tensor_is_read_from_its_place(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    path = save(whole[1:3, 2:5], tmp_path / "mine.pt")
    assert embedding.read(path).vectors["emb_params"].tolist() == [[8, 9, 10], [14, 15, 16]]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, 3, dtype=torch.int32),
        torch.ones(2, 3, dtype=torch.bool),
        torch.ones(2, 3, 1),
        torch.ones(0, 3),
        torch.tensor([[1.0, float("nan")]]),
        torch.tensor([[1e300]], dtype=torch.float64),
        torch.tensor(1.0),
    ],
    ids=str,
)
def test_it_refuses_with_the_same_line(tmp_path: Path, suffix: str, tensor: torch.Tensor) -> None:
    path = save(tensor, tmp_path / f"mine{suffix}")
    with pytest.raises(EmbeddingError) as whole:
        embedding.read(path)
    with pytest.raises(EmbeddingError) as short:
        listing.read(path)
    assert str(short.value) == str(whole.value) and str(whole.value).startswith("mine: ")
