"""The numbers of a tensor, from the bytes that a file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZES = {"bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1}  # bytes of the types that only torch has


def array(data: bytes | bytearray, type_name: str) -> NDArray[Any]:
    """The numbers in a row, of a type by its name in torch. Floats that NumPy has not are exact in float32.

    Raises ValueError where the bytes are no whole number of them.
    """
    if type_name == "bfloat16":  # the upper half of a float32
        return np.left_shift(np.frombuffer(data, "<u2").astype(np.uint32), 16).view(np.float32)
    if type_name in SIZES:
        import torch

        floats: NDArray[Any] = torch.tensor(data, dtype=torch.uint8).view(getattr(torch, type_name)).float().numpy()
        return floats
    return np.frombuffer(data, np.dtype(type_name).newbyteorder("<"))


def size(type_name: str) -> int:
    """Bytes of one number."""
    return SIZES.get(type_name) or np.dtype(type_name).itemsize
