"""Files that a training writes on its way: the best vectors at every n-th step, and previews.

They lie in TREE-steps/NAME, beside the tree of embeddings. WebUIs read an embeddings folder with all its subfolders, so
each snapshot in it would be a word.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embedding_estimate.errors import EmbeddingError, EstimateError
from embedding_estimate.files.whole_file import write_whole
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage import saving

if TYPE_CHECKING:
    from embedding_estimate.fidelity.previews import Preview
    from embedding_estimate.files.embedding import Embedding


class Snapshots:
    """The folder of one job's snapshots."""

    def __init__(self, settings: Settings, tree: Path, stop: StopToken, on_note: Callable[[str], None]):
        """`on_note` gets a line for each file that could not be written, and one about snapshots of an earlier job."""
        self.settings = settings
        self.stop = stop
        self.on_note = on_note
        self.folder = saving.beside(tree.resolve(), "steps") / settings.name
        self.written: list[Path] = []

    def try_folder(self) -> None:
        """Raises `EmbeddingError` if the folder cannot be made or written."""
        with saving.made(self.folder):
            pass

    @contextmanager
    def kept(self, *, goes_on: bool = False) -> Iterator[None]:
        """Spans the training. What is written stays, also after an error, unless the user discards the job.

        Snapshots of an earlier job move aside to `NAME (before)`, which cannot be the name of an embedding. They come
        back if this job is discarded or writes none. They are removed if the job was to overwrite them and has
        finished. Those of a job that `goes_on` after it was cut off are its own, and stay where they are.

        Raises `EmbeddingError` if the folder cannot be made or written.
        """
        aside = None if goes_on else self._move_aside()
        ended = False
        try:
            with saving.made(self.folder):
                try:
                    yield
                    ended = True
                finally:
                    if self.stop.dropped:
                        self._remove_written()
        finally:
            self._settle(aside, ended)

    def _move_aside(self) -> Path | None:
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return None
        first = self.folder.with_name(f"{self.folder.name} (before)")
        more = (self.folder.with_name(f"{self.folder.name} (before {number})") for number in itertools.count(2))
        aside = next(path for path in itertools.chain([first], more) if not path.exists())
        try:
            self.folder.rename(aside)
        except OSError as error:
            raise EmbeddingError(
                f"{self.folder}: cannot be renamed ({error.strerror or error}); move it, or choose another name"
            ) from error
        return aside

    def _settle(self, aside: Path | None, ended: bool) -> None:
        """Restores, removes or reports the snapshots of an earlier job."""
        if aside is None:
            return
        if not self.folder.exists():  # nothing was written, or the job was discarded
            aside.rename(self.folder)
        elif ended and self.settings.overwrite:
            # names have no wildcards, see `names.GRAMMAR`
            for path in self.folder.parent.glob(f"{self.folder.name} (before*)"):
                shutil.rmtree(path, ignore_errors=True)
        else:
            self.on_note(
                f"{aside}: holds the snapshots of an earlier job with this name; delete them if you do not need them"
            )

    def _remove_written(self) -> None:
        for path in self.written:
            path.unlink(missing_ok=True)

    def write(self, embedding: Embedding, step: int) -> None:
        """Writes the vectors of a step, one file for each word. If that fails, a note says so and the
        training goes on."""
        from embedding_estimate.files.embedding import write
        from embedding_estimate.storage.phrases import parts_of

        for part in parts_of(embedding):
            path = self._path(part.name, step, self.settings.format)
            self._try(path, partial(write, part, path, overwrite=True))

    def draw(self, preview: Preview) -> None:
        """Writes the preview of a step. If that fails, a note says so and the training goes on."""
        path = self._path(self.settings.name, preview.step, "png")
        self._try(path, lambda: write_whole(path, saving.png(preview.side_by_side())))

    def _path(self, name: str, step: int, extension: str) -> Path:
        return self.folder / f"{name}-{step:06d}.{extension}"

    def _try(self, path: Path, writing: Callable[[], None]) -> None:
        try:
            writing()
            self.written.append(path)
        except EstimateError as error:
            self.on_note(str(error))
