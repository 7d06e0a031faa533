import torch
from torch import Tensor


def attention_pytorch(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(B, T, H * d) of queries, keys and values likewise."""
    q, k, v = (value.unflatten(-1, (heads, -1)).transpose(1, 2) for value in (q, k, v))
    return ((q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)


def attention_sage(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """A kernel that knows no gradient."""
    with torch.no_grad():
        return attention_pytorch(q, k, v, heads)


attention_function = attention_pytorch
