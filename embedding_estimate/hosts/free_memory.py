"""How much memory a device has left for a job."""

from __future__ import annotations

import torch


def free_memory(device: torch.device) -> int | None:
    """Bytes that tensors can still take on a CUDA device; None on others, which do not tell, or gain nothing by it.

    What torch has set aside and does not use is free too.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
