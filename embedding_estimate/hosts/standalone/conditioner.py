"""From prompts to conditionings for SD1, SD2 and SDXL, as AUTOMATIC1111 1.10.1 makes them."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from embedding_estimate.errors import EmbeddingError, SettingsError
from embedding_estimate.hosts.batching import batches
from embedding_estimate.hosts.slots import SLOT, marks
from embedding_estimate.hosts.standalone import chunks, encoding, grammar
from embedding_estimate.hosts.standalone.chunks import Chunk, Lookup, Placed, Run, Unit
from embedding_estimate.hosts.standalone.emphasis import apart, by_name, unchanged
from embedding_estimate.hosts.standalone.encoding import Layout
from embedding_estimate.hosts.standalone.text_encoder import ClipEncoder, Output
from embedding_estimate.model.host import Conditioning, Stage, Vectors

if TYPE_CHECKING:
    from embedding_estimate.hosts.standalone.loading import LoadedModel


class Conditioner:
    """The part of `host.BorrowedModel` that reads and encodes prompts."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        emphasis: str = "Original",
        clip_skip: int = 1,
        embeddings: Mapping[str, Vectors] | None = None,
    ):
        """`embeddings` holds the embeddings that prompts can use: name -> vectors (N, width) by encoder.

        Only SD1 uses `clip_skip`, the number of the layer counted from the last, as in the WebUI. Raises SettingsError
        for an unknown emphasis or a clip skip out of range, and EmbeddingError as `add_embedding` does.
        """
        self.family = loaded.family
        self.encoders = {
            key: ClipEncoder(key, part.model, part.tokenizer, _output(loaded.family, key, clip_skip))
            for key, part in loaded.text_encoders.items()
        }
        self._first = next(iter(self.encoders.values()))
        if not 1 <= clip_skip <= self._first.layers + 1:
            most = self._first.layers + 1
            raise SettingsError([f"clip_skip={clip_skip}: this model's text encoder takes 1 to {most}"])
        self._weigh = by_name(emphasis)
        self._reads_weights = emphasis != "None"
        self._lookup = Lookup()
        self._names: dict[str, None] = {}  # in their order
        # by template and places of each slot: training asks for the same ones always
        self._layouts: dict[tuple[str, tuple[tuple[str, int], ...]], Mapping[ClipEncoder, Sequence[Chunk]]] = {}
        for name, vectors in (embeddings or {}).items():
            self.add_embedding(name, vectors)

    @contextmanager
    def mode(self, emphasis: str) -> Iterator[None]:
        """While active, weights are applied in this emphasis mode. Brackets are read as before."""
        before, self._weigh = self._weigh, by_name(emphasis)
        try:
            yield
        finally:
            self._weigh = before

    def add_embedding(self, name: str, vectors: Vectors) -> None:
        """Makes a name stand for vectors (N, width) by encoder, and replaces what it stood for.

        Raises EmbeddingError if they do not fit the model or the name has no token.
        """
        placed = self._placed(name, vectors)
        [tokens] = self._first.tokenize([name])
        self._lookup.add(placed, tokens)
        self._layouts.clear()
        self._names[name] = None

    def embedding_names(self) -> list[str]:
        return list(self._names)

    @torch.no_grad()
    def encode(
        self,
        prompt: str,
        *,
        evaluations: int,
        width: int,
        height: int,
        negative: bool = False,
        weights: bool = True,
    ) -> list[Stage]:
        """`host.BorrowedModel.encode`. `AND` composes in the positive prompt only.

        As in the WebUI, all stages of a schedule form one batch, over which "Original" takes its mean, and parts of an
        `AND` are filled up to the longest with their last row.
        """
        parts = [(prompt, 1.0)] if negative else grammar.compose(prompt)
        schedules = []
        for text, weight in parts:
            ends, texts = zip(*grammar.schedule(text, evaluations), strict=True)
            conditionings = self._conditionings(
                texts, self._layout(texts), width=width, height=height, negative=negative, weights=weights
            )
            schedules.append((ends, conditionings, weight))
        length = max(conditionings[0].context.shape[1] for _, conditionings, _ in schedules)

        stages = []
        for until in sorted({end for ends, _, _ in schedules for end in ends}):
            now = []
            for ends, conditionings, weight in schedules:
                index = next(i for i, end in enumerate(ends) if until <= end)
                now.append((encoding.lengthened(conditionings[index], length), weight))
            stages.append(Stage(until, tuple(now)))
        return stages

    def encode_vectors(
        self, vectors: Vectors, templates: Sequence[str], *, width: int, height: int, negative: bool = False
    ) -> list[Conditioning]:
        """`host.BorrowedModel.encode_vectors`. `{}` takes places as an embedding does and splits the text that it
        touches.

        Raises EmbeddingError if the vectors do not fit the model.
        """
        slots = {slot: span for template in templates for slot, span in _slots(template).items()}
        placed = {
            slot: self._placed(slot, {key: value[span] for key, value in vectors.items()})
            for slot, span in slots.items()
        }
        counts = tuple((slot, one.count) for slot, one in placed.items())
        vacant = {template: self._vacant(template, counts) for template in templates}
        different, weigh = list(vacant), apart(self._weigh)
        made: dict[str, Conditioning] = {}
        for places in batches([vacant[template][self._first] for template in different], weighed_together=False):
            batch = [different[place] for place in places]
            layout = {
                encoder: [[chunk.occupied(placed) for chunk in vacant[template][encoder]] for template in batch]
                for encoder in self.encoders.values()
            }
            encoded = encoding.conditionings(batch, layout, weigh, width=width, height=height, negative=negative)
            made |= zip(batch, encoded, strict=True)
        return [made[template] for template in templates]

    def _vacant(self, template: str, counts: tuple[tuple[str, int], ...]) -> Mapping[ClipEncoder, Sequence[Chunk]]:
        """The template's chunks, as each encoder reads them, with places kept for the vectors of each slot."""
        key = template, counts
        if key not in self._layouts:
            mark = marks(template, (slot for slot, _ in counts))
            marked = SLOT.sub(lambda slot: mark[slot[0]], template)
            layout = self._layout([marked], {mark[slot]: Placed(slot, {}, count) for slot, count in counts})
            self._layouts[key] = {encoder: text for encoder, [text] in layout.items()}
        return self._layouts[key]

    def token_ids(self, text: str) -> list[int]:
        """`host.BorrowedModel.token_ids`."""
        return self._first.tokenize([text])[0]

    @torch.no_grad()
    def token_vectors(self, text: str) -> dict[str, Tensor]:
        """`host.BorrowedModel.token_vectors`. `AND` and schedules are read as text."""
        vectors = {}
        for key, encoder in self.encoders.items():
            pieces = [encoder.table[:0]]
            for run in self._runs(text, {}, encoder):
                for token, placed in run.units or ():
                    pieces.append(encoder.table[[token]] if placed is None else placed.vectors[key].to(encoder.table))
            vectors[key] = torch.cat(pieces)  # (n, width)
        return vectors

    def token_weights(self, text: str) -> list[float]:
        """`host.BorrowedModel.token_weights`."""
        return [
            run.weight
            for run in self._runs(text, {}, self._first)
            for _, placed in run.units or ()
            for _ in range(1 if placed is None else placed.count)
        ]

    @torch.no_grad()
    def padding_vectors(self) -> dict[str, Tensor]:
        """`host.BorrowedModel.padding_vectors`."""
        return {key: encoder.table[encoder.marks.pad].clone() for key, encoder in self.encoders.items()}

    def vocabulary(self) -> dict[str, Tensor]:
        """`host.BorrowedModel.vocabulary`."""
        return {key: encoder.table.detach() for key, encoder in self.encoders.items()}

    def token_text(self, key: str, token: int) -> str:
        """The text of a token of one encoder."""
        return self.encoders[key].token_text(token)

    def layout(self, text: str) -> tuple[list[Chunk], int]:
        """The first encoder's chunks of a text, and the number of tokens that it counts."""
        return chunks.build(self._runs(text, {}, self._first), self._first.marks)

    def _placed(self, name: str, vectors: Vectors) -> Placed:
        for key, encoder in self.encoders.items():
            width = encoder.table.shape[1]
            if key not in vectors:
                raise EmbeddingError(f"{name}: no vectors for {key}; this model takes {', '.join(self.encoders)}")
            if vectors[key].ndim != 2 or vectors[key].shape[1] != width:
                shape = "x".join(map(str, vectors[key].shape))
                raise EmbeddingError(f"{name}: {key} is {shape}, but this model's vectors are {width} wide")
        return Placed(name, vectors, count=len(vectors[list(self.encoders)[-1]]))

    def _runs(self, text: str, slots: Mapping[str, Placed], encoder: ClipEncoder) -> list[Run]:
        segments = grammar.emphasise(text) if self._reads_weights else [grammar.Segment(text, 1.0)]
        marks = re.compile(f"([{''.join(slots)}])") if slots else None
        pieces = [marks.split(segment.text) if marks else [segment.text] for segment in segments]
        tokens = iter(encoder.tokenize([text for parts in pieces for text in parts[::2]]))
        runs = []
        for segment, parts in zip(segments, pieces, strict=True):
            units: list[Unit] = []
            for number, part in enumerate(parts):  # text and marks in turn
                units += [Unit(None, slots[part])] if number % 2 else self._lookup.units(next(tokens))
            runs.append(Run(None if segment.is_break else units, segment.weight))
        return runs

    def _layout(self, texts: Sequence[str], slots: Mapping[str, Placed] = types.MappingProxyType({})) -> Layout:
        """The chunks of the texts, as each encoder reads them. A text that occurs several times is there once."""
        return {
            encoder: [chunks.build(self._runs(text, slots, encoder), encoder.marks)[0] for text in dict.fromkeys(texts)]
            for encoder in self.encoders.values()
        }

    def _conditionings(
        self, texts: Sequence[str], layout: Layout, *, width: int, height: int, negative: bool, weights: bool = True
    ) -> list[Conditioning]:
        """`encoding.conditionings` in the current emphasis mode."""
        weigh = self._weigh if weights else unchanged
        return encoding.conditionings(texts, layout, weigh, width=width, height=height, negative=negative)


def _slots(template: str) -> dict[str, slice]:
    """The slots of a template, each with the rows of the vectors that belong there."""
    return {
        slot[0]: slice(int(slot["first"]), int(slot["last"])) if slot["first"] else slice(None)
        for slot in SLOT.finditer(template)
    }


def _output(family: str, key: str, clip_skip: int) -> Output:
    """Which hidden states the family uses: SD2's files lack the last layer; SDXL takes the last but one, without final
    norm."""
    if family == "sdxl":
        return Output(skip=1, final_norm=False, pooled=key == "clip_g")
    return Output(skip=clip_skip - 1 if family == "sd1" else 0)
