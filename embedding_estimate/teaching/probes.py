"""What the U-Net's cross-attentions read of a prompt, and how much each reading moves the prediction.

To first order the prediction changes by the sum over layers and rows of J_r d_r, where d_r is how what row r gathers
changes, its query held fixed, and J_r is the prediction's derivative by it: the Gauss-Newton view of the U-Net. J_r
is too large to keep. But for a vector s of random signs E[(s'J d)^2] = |J d|^2 (Hutchinson 1990), and s'J comes out of
one backward pass for all rows of all layers. So of each row that is kept there is its query q_r, its gradient
g_r = J_r's and the number a_r = g_r' m_r(prompt), m_r being what the row gathers, and

    err(c) ~ sum over rows of (g_r' m_r(c) - a_r)^2

counts each row's error in full and takes different rows' as independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from embedding_estimate.model.host import BorrowedModel, Conditioning, CrossAttention
from embedding_estimate.teaching.sensitivity import Pass, Sensitivity, by_gradient
from embedding_estimate.teaching.sides import Side, States, by_stage

TOGETHER = 2**23  # numbers of the queries that one product reads


@dataclass(frozen=True)
class LayerProbes:
    """Rows of cross-attentions of one shape, from several states."""

    attentions: tuple[CrossAttention, ...]  # A
    queries: Tensor  # (A, H, R, d), in the precision of the U-Net
    gradients: Tensor  # (A, H, R, d), in fp32 or better

    def read(self, context: Tensor) -> Tensor:
        """g_r' m_r of contexts (B, L, C): (B, A, R) in fp32 or better. Differentiable."""
        read = [attention.read(context) for attention in self.attentions]
        number = self.queries.shape[1]
        keys, values = (
            heads(torch.stack(of_layers), number) for of_layers in zip(*read, strict=True)
        )  # (A, B, H, L, d)
        scaled = (keys / math.sqrt(keys.shape[-1])).transpose(-2, -1)  # (A, B, H, d, L)
        gathered = (self.queries[:, None].to(keys) @ scaled).softmax(-1) @ values  # on a CPU quicker than fused
        return (gathered * self.gradients[:, None].to(keys)).sum(dim=(2, 4)).transpose(0, 1)  # of (A, B, H, R, d)

    @classmethod
    def join(cls, parts: Sequence[LayerProbes], dim: int) -> LayerProbes:
        """Those of more cross-attentions (`dim` 0), or of more states (`dim` 2)."""
        attentions = parts[0].attentions if dim else tuple(own for part in parts for own in part.attentions)
        queries = torch.cat([part.queries for part in parts], dim)
        return cls(attentions, queries, torch.cat([part.gradients for part in parts], dim))


@dataclass(frozen=True)
class Probes:
    """All layers' rows with what the prompt reads there, and the same for SDXL's vector.

    Layers of one shape are read together: on a GPU it is calls that cost time, and SDXL has 70 cross-attentions.
    """

    layers: Sequence[LayerProbes]
    vector: Tensor | None  # (S, V): gradients by the conditioning's vector
    aim: Tensor  # (all R, and S): the prompt's readings
    evaluation: Tensor  # (all R, and S): of each reading's state, the 0-based denoiser evaluation

    def read(self, conditioning: Conditioning) -> Tensor:
        """The readings of B conditionings of one length: (B, all R, and S). Differentiable."""
        readings = [layers.read(conditioning.context).flatten(1) for layers in self.layers]
        if self.vector is not None and conditioning.vector is not None:
            readings.append(conditioning.vector @ self.vector.T)
        return torch.cat(readings, dim=1)

    def error(self, conditioning: Conditioning) -> Tensor:
        """The error that the rows foresee for one conditioning, in epsilon units; differentiable."""
        return (self.read(conditioning) - self.aim).square().sum()

    @torch.no_grad()
    def aimed(self, side: Side) -> Probes:
        """The same rows with another prompt's readings: at each state those of its stage. The U-Net is not asked."""
        ends = torch.tensor([stage.until for stage in side.stages[:-1]], device=self.evaluation.device)
        stage = torch.bucketize(self.evaluation, ends)  # (all R, and S)
        readings = torch.cat([self.read(stage.parts[0][0]) for stage in side.stages])
        return replace(self, aim=readings.gather(0, stage[None])[0])

    def tensors(self, attentions: Sequence[CrossAttention]) -> list[Tensor]:
        """All that there is but the cross-attentions, by their places in the model's; copies are the caller's task."""
        place = {id(attention.to_q): place for place, attention in enumerate(attentions)}
        vector = self.aim.new_zeros(0) if self.vector is None else self.vector
        parts = [vector, self.aim, self.evaluation]
        for layers in self.layers:
            places = torch.tensor([place[id(attention.to_q)] for attention in layers.attentions])
            parts += [places, layers.queries, layers.gradients]
        return parts

    @classmethod
    def of_tensors(
        cls, tensors: Sequence[Tensor], attentions: Sequence[CrossAttention], device: torch.device
    ) -> Probes:
        """The reverse: copies on the device."""
        vector, aim, evaluation = (tensor.to(device, copy=True) for tensor in tensors[:3])
        groups = [
            LayerProbes(
                tuple(attentions[place] for place in places.tolist()),
                queries.to(device, copy=True),
                gradients.to(device, copy=True),
            )
            for places, queries, gradients in zip(tensors[3::3], tensors[4::3], tensors[5::3], strict=True)
        ]
        return cls(groups, vector if len(vector) else None, aim, evaluation)

    def dealt(self, number: int) -> list[Probes]:
        """The rows in so many portions, each of which stands for all of them. These probes are used up."""
        scale = math.sqrt(number)
        for layers in self.layers:
            layers.gradients.mul_(scale)
        sizes = [layers.queries.shape[2] for layers in self.layers for _ in layers.attentions]
        sizes += [] if self.vector is None else [len(self.vector)]

        def every(values: Tensor, first: int) -> Tensor:
            """Of (all R, and S)."""
            return torch.cat([part[first::number] for part in torch.split(values, sizes)])

        return [
            Probes(
                [
                    LayerProbes(own.attentions, own.queries[:, :, first::number], own.gradients[:, :, first::number])
                    for own in self.layers
                ],
                None if self.vector is None else self.vector[first::number] * scale,
                every(self.aim, first) * scale,
                every(self.evaluation, first),
            )
            for first in range(number)
        ]


def heads(value: Tensor, number: int) -> Tensor:
    """(..., T, H * d) to (..., H, T, d)."""
    return value.reshape(*value.shape[:-1], number, -1).transpose(-3, -2)


def probe(
    model: BorrowedModel,
    seen: Sequence[tuple[Side, States]],
    *,
    rows: int,
    batch: int,
    generator: torch.Generator,
    sensitivity: Sensitivity = by_gradient,
    on_pass: Callable[[int], None] = lambda states: None,
) -> Probes:
    """Probes of about `rows` rows in each layer, spread over states of several prompts.

    At most `batch` states of one prompt go through together; `on_pass` is told how many, after each pass. Each stretch
    of a schedule is read with its own conditioning; a side that composes predictions with `AND` has no one context to
    read, and is not for this.
    """
    attentions = model.cross_attentions()
    total = sum(len(states) for _, states in seen)
    share = math.ceil(rows / total)
    kept: list[list[LayerProbes]] = [[] for _ in attentions]
    vectors: list[Tensor] = []
    aims: list[list[Tensor]] = [[] for _ in (*attentions, "vector")]
    evaluations: list[list[Tensor]] = [[] for _ in aims]
    for side, chunk in _chunks(seen, batch):
        conditioning = side.stage(int(chunk.evaluation[0])).parts[0][0]
        with _queries(attentions, share, generator) as picked:
            sensed = sensitivity(Pass(model, attentions, chunk, conditioning), generator)
        weights = sensed.weights / math.sqrt(total)  # (B,)
        for layer, (attention, gradient) in enumerate(zip(attentions, sensed.vectors, strict=False)):
            kept[layer].append(picked[layer].with_gradient(attention, gradient, weights))
            with torch.no_grad():
                aims[layer].append(kept[layer][-1].read(conditioning.context)[0, 0])
        if conditioning.vector is not None:
            vectors.append(sensed.vectors[-1] * weights[:, None])
            aims[-1].append(vectors[-1] @ conditioning.vector[0])
        for readings, those in zip(aims, evaluations, strict=True):
            if readings:
                those.append(chunk.evaluation.repeat_interleave(len(readings[-1]) // len(chunk)))
        on_pass(len(chunk))
    groups = _alike(kept)
    layers = []
    for group in groups:
        layers.append(LayerProbes.join([LayerProbes.join(kept[layer], dim=2) for layer in group], dim=0))
        for layer in group:
            kept[layer].clear()  # or all would be held twice
    order = [*chain.from_iterable(groups), len(attentions)]
    return Probes(
        layers,
        torch.cat(vectors) if vectors else None,
        torch.cat([aim for layer in order for aim in aims[layer]]),
        torch.cat([those for layer in order for those in evaluations[layer]]),
    )


def _chunks(seen: Sequence[tuple[Side, States]], batch: int) -> Iterator[tuple[Side, States]]:
    """At most `batch` states of one stage."""
    for side, states in seen:
        for part in by_stage(side, states[states.evaluation.argsort(stable=True)]):
            for chunk in part.split(batch):
                yield side, chunk


def _alike(kept: Sequence[Sequence[LayerProbes]]) -> list[list[int]]:
    """Numbers of layers of one shape, as many together as `TOGETHER` allows."""
    by_shape: dict[tuple[int, int, int], list[list[int]]] = {}
    for layer, parts in enumerate(kept):
        size = sum(part.queries.numel() for part in parts)
        groups = by_shape.setdefault((*parts[0].queries.shape[1::2], size), [[]])  # H, d, and so R
        if groups[-1] and (len(groups[-1]) + 1) * size > TOGETHER:
            groups.append([])
        groups[-1].append(layer)
    return [group for groups in by_shape.values() for group in groups]


@dataclass(frozen=True)
class _Picked:
    """Rows of one cross-attention in one pass."""

    places: tuple[Tensor, Tensor]  # state (B, 1) and row (B, rows)
    queries: Tensor  # (B, rows, H * d)
    total: int  # rows that there are

    def with_gradient(self, attention: CrossAttention, gradient: Tensor, weights: Tensor) -> LayerProbes:
        """`gradient` (B, T, H * d) is for all rows, `weights` (B,) for states; a row stands for several."""
        share = math.sqrt(self.total / self.queries.shape[1])
        picked = gradient[self.places] * (weights * share)[:, None, None]  # (B, rows, H * d), in the weights' fp32
        return LayerProbes(
            (attention,),
            *(heads(value, attention.heads).transpose(0, 1).flatten(1, 2)[None] for value in (self.queries, picked)),
        )


@contextmanager
def _queries(
    attentions: Sequence[CrossAttention], rows: int, generator: torch.Generator
) -> Iterator[dict[int, _Picked]]:
    """Within, the first pass of the U-Net leaves `rows` rows of each state here, picked at random in each layer."""
    picked: dict[int, _Picked] = {}

    def hook(layer: int) -> Callable[..., None]:
        def pick(_module: nn.Module, _args: Any, queries: Tensor) -> None:
            if layer in picked:
                return
            batch, total = queries.shape[:2]
            chosen = torch.rand(batch, total, generator=generator).argsort(dim=1)[:, :rows].to(queries.device)
            places = torch.arange(batch, device=queries.device)[:, None], chosen
            picked[layer] = _Picked(places, queries.detach()[places], total)

        return pick

    with ExitStack() as stack:
        for layer, attention in enumerate(attentions):
            stack.callback(attention.to_q.register_forward_hook(hook(layer)).remove)
        yield picked
