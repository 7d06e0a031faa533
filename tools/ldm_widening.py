"""Widens modules until LDM's code can hold them, without changing what they compute.

LDM normalises in 32 groups, whatever the width (Rombach et al., "High-Resolution Image Synthesis with Latent
Diffusion Models", 2022). A model with fewer groups fits in when its channels stand there several times, so that each
of the 32 groups consists of copies of one old group: its mean and variance are then the old ones. Whatever reads
repeated channels reads the first copy and has zeros for the others.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

LDM_GROUPS = 32
UNET_GROUPS = 8  # the only number for which around_seam is right
EMPTY = -1  # a place that holds zero

Layout = list[int]  # the old channel at each new place


class Part(NamedTuple):
    """A module of the narrow model, its name in LDM, and the layouts of what it writes and reads there."""

    name: str
    module: Any
    writes: Layout
    reads: Layout | None = None  # None for a norm, which only scales its input
    gain: float = 1.0


def under(prefix: str, parts: Iterable[Part]) -> Iterator[Part]:
    return (part._replace(name=f"{prefix}.{part.name}") for part in parts)


def tensors(parts: Iterable[Part]) -> Iterator[tuple[str, Tensor]]:
    """Names and widened tensors. Raises ValueError for a norm whose groups cannot be found among LDM's."""
    for name, module, writes, reads, gain in parts:
        if isinstance(module, nn.GroupNorm) and not repeats_groups(writes, module.num_channels, module.num_groups):
            raise ValueError(
                f"{name}: {module.num_groups} groups of {module.num_channels} channels do not fit into LDM's 32; "
                f"a U-Net needs {UNET_GROUPS} groups, of n and 2n channels, a VAE a power of two up to 32"
            )
        yield f"{name}.weight", placed(module.weight.detach() * gain, writes, reads)
        if module.bias is not None:
            yield f"{name}.bias", placed(module.bias.detach() * gain, writes)


def placed(tensor: Tensor, writes: Layout, reads: Layout | None = None) -> Tensor:
    """A tensor (outputs, inputs, ...) with rows and columns where the layouts say, and zeros at empty places."""
    rows = torch.cat([tensor, torch.zeros_like(tensor[:1])])[writes]  # EMPTY takes the last row
    return rows if reads is None else placed(rows.transpose(0, 1), reads).transpose(0, 1).contiguous()


def repeats_groups(layout: Layout, channels: int, groups: int) -> bool:
    """Whether all channels are there and each of LDM's groups holds one of the old groups, evenly repeated."""
    size = channels // groups
    found = torch.tensor(layout).view(LDM_GROUPS, -1).sort(dim=1).values  # (32, places in a group)
    group = torch.arange(size).repeat_interleave(found.shape[1] // size)
    return set(layout) == set(range(channels)) and torch.equal(found, found[:, :1] // size * size + group)


def whole(channels: int) -> Layout:
    return list(range(channels))


def padded(channels: Iterable[int], places: int) -> Layout:
    """The channels, and then empty places."""
    layout = list(channels)
    return layout + [EMPTY] * (places - len(layout))


def first_copies(layout: Layout) -> Layout:
    """The layout with every channel but its first copy taken away: what a reader looks at."""
    return [channel if channel not in layout[:place] else EMPTY for place, channel in enumerate(layout)]


def in_heads(channels: int, heads: int, copies: int) -> Layout:
    """The channels of an attention with as many heads, each `copies` times as large, and the rest of it empty."""
    size = channels // heads
    return [place for head in range(heads) for place in padded(range(head * size, (head + 1) * size), size * copies)]


def around_seam(channels: int, narrow: int) -> Layout:
    """Four places for every channel of a U-Net with `narrow` channels in its first level, twice as many in the other.

    The U-Net also normalises concatenations, whose groups are larger. Where 2n channels meet n, the sixth of the
    eight groups lies across the seam, with a third of its channels on the left. So one layout has to come out as old
    groups in a tensor alone, beside its like, and beside the other kind. In units of n / 8 channels it is

        left, 2n:   5 times 0..11, then 12 13 14 15   (64 units)
        right, n:   0 1, then 5 times 2..7            (32 units)

    Both together make 32 groups of three units: 20 in the fivefold units of the left, 12 13 14, then 15 | 0 1 across
    the seam, and 10 in the fivefold units of the right. Cut into groups of one, two or four units they fit as well.
    """
    unit = narrow // UNET_GROUPS
    if channels == narrow:
        return [*range(2 * unit), *list(range(2 * unit, 8 * unit)) * 5]
    return [*list(range(12 * unit)) * 5, *range(12 * unit, 16 * unit)]
