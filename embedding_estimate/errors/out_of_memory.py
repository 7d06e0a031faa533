"""How different devices report that memory has run out."""

from __future__ import annotations

WORDS = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "alloc_failed",  # cuBLAS
    "unable to find an engine",  # cuDNN
    "invalid buffer size",  # MPS
    "not enough gpu video memory",  # DirectML
    "out_of_device_memory",  # oneAPI
    "out_of_resources",
)


def ran_out(error: BaseException) -> bool:
    """Whether an error reports that memory has run out, on any device."""
    import torch  # here, because the command line must not load torch for this

    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)
