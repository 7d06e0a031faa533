"""Previews during the training: one seed with the vectors, beside the prompt and the empty prompt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from embedding_estimate.errors import failures
from embedding_estimate.fidelity.protocol import IMAGE_SEEDS, TRAJECTORY
from embedding_estimate.model.host import Vectors
from embedding_estimate.progress import Stopped
from embedding_estimate.teaching.sides import Side
from embedding_estimate.teaching.teacher import Teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preview:
    """The pictures of one seed at a learning step."""

    step: int
    pictures: Mapping[str, Image.Image]  # "prompt", "embedding" and "empty", all of one size

    def side_by_side(self) -> Image.Image:
        """All pictures in one row."""
        width, height = self.pictures["prompt"].size
        row = Image.new("RGB", (width * len(self.pictures), height))
        for column, image in enumerate(self.pictures.values()):
            row.paste(image, (column * width, 0))
        return row


class Previews:
    """Makes the previews of one job. If one fails, a line says so, and no more are made."""

    def __init__(self, on_preview: Callable[[Preview], None], on_failure: Callable[[str], None]):
        """`on_failure` gets one line."""
        self.on_preview = on_preview
        self.on_failure = on_failure
        self._lasting: dict[str, Image.Image] = {}  # pictures that do not change with the vectors
        self._failed = False

    def make(self, teacher: Teacher, vectors: Vectors, step: int) -> None:
        if self._failed:
            return
        try:
            if not self._lasting:
                texts = {"prompt": teacher.task.text, "empty": ""}
                self._lasting = {row: _made(teacher, teacher.replaced(texts[row], TRAJECTORY)) for row in texts}
            mine = _made(teacher, teacher.student(vectors))
        except Stopped:
            raise
        except Exception as error:  # a failed preview must not end the training
            self._failed = True
            reason = failures.logged(error, logger, f"the preview of step {step}")
            self.on_failure(f"no previews from step {step} on, because the model failed: {reason}")
            return
        prompt, empty = self._lasting["prompt"], self._lasting["empty"]
        self.on_preview(Preview(step, {"prompt": prompt, "embedding": mine, "empty": empty}))


def _made(teacher: Teacher, side: Side) -> Image.Image:
    return picture(teacher.model.decode(teacher.run(side, TRAJECTORY, IMAGE_SEEDS[:1], 1))[0])


def picture(pixels: Tensor) -> Image.Image:
    """An image of pixels (3, H, W) in [0, 1]. Pixels that are not numbers become black."""
    levels = (pixels.nan_to_num().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()  # (H, W, 3)
    return Image.frombytes("RGB", (levels.shape[1], levels.shape[0]), levels.numpy().tobytes())
