"""Where the results of a job go: found out and tried before the work starts, never lost at its end."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from embedding_estimate import names
from embedding_estimate.errors import EmbeddingError, EstimateError, NameTaken
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.whole_file import remove_abandoned, temporary_beside, write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedding_estimate.embedding import Embedding

SOFTWARE = "Embedding Estimate"
ROOM = 2**20  # bytes that must fit: more than an embedding of any model has


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Makes a folder with its parents for the time of the work; what stays empty is taken away again.

    Raises `EmbeddingError` where it cannot be made or written.
    """
    missing: list[Path] = []
    try:
        try:
            missing = [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddingError(
                f"{folder}: cannot be made ({error.strerror or error}); choose another folder"
            ) from error
        _try_writing(folder)
        yield
    finally:
        for each in missing:
            if each.is_dir() and not any(each.iterdir()):
                each.rmdir()


def _try_writing(folder: Path) -> None:
    """Writes and removes a file as large as an embedding may be: permissions tell nothing of a full disk.

    What killed programs have left in the folder is removed before.
    """
    remove_abandoned(folder)
    trial = temporary_beside(folder / "trial")
    try:
        try:
            trial.write_bytes(bytes(ROOM))
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        raise EmbeddingError(
            f"{folder}: cannot be written ({error.strerror or error}); free some space or choose another folder"
        ) from error


def beside(tree: Path, what: str) -> Path:
    """TREE-what, for files that are no embeddings: WebUIs take a picture among those for one."""
    return tree.parent / f"{tree.name}-{what}"


def check_report(report: Path | None, embeddings: Path | None) -> str:
    """Raises `EmbeddingError` for a report that could not be saved; returns a warning of one among embeddings."""
    if report is None:
        return ""
    folder = report.parent
    if not folder.is_dir():
        raise EmbeddingError(f"{folder}: is no folder; create it or put the report elsewhere")
    if report.is_dir():
        raise EmbeddingError(f"{report}: is a folder; give the report another name")
    if not ours(report):
        raise NameTaken(f"{report}: is there, and this program has not made it; give the report another name")
    _try_writing(folder)
    if embeddings and embeddings.resolve() in report.resolve().parents:
        return f"{report} is among the embeddings, and WebUIs take a picture there for one"
    return ""


class Result:
    """The file of a job's embedding: there as soon as it is trained, written once more with its figures.

    As a context manager it puts things back as they were where the job is dropped, whatever ends it, and only there.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        stop: StopToken,
        *,
        tree: Path | None = None,
        on_failure: Callable[[str], None],
    ):
        """The name has to be new in the `tree`. `on_failure` is told, in one line, of figures that did not fit."""
        self.settings = settings
        self.folder = folder
        self.stop = stop
        self.tree = tree
        self.on_failure = on_failure
        self.path: Path | None = None  # once it is there
        self._before: bytes | None = None  # what the path held, where that was overwritten

    def __enter__(self) -> Result:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.path is None or not self.stop.dropped:
            return
        if self._before is None:
            self.path.unlink(missing_ok=True)
        else:
            write_whole(self.path, self._before)

    def save(self, embedding: Embedding) -> Path:
        """Writes it under its name; where that fails the first time, among the system's temporary files.

        Raises `EstimateError` that says what went wrong and where the embedding is now.
        """
        from embedding_estimate.embedding import write

        if self.path is None:
            self.path = self._first(embedding)
        else:
            try:
                write(embedding, self.path, overwrite=True)
            except EstimateError as error:
                self.on_failure(f"{error}. The embedding is there, without its figures")
        return self.path

    def _first(self, embedding: Embedding) -> Path:
        from embedding_estimate.embedding import write

        name, overwrite, extension = self.settings.name, self.settings.overwrite, f".{self.settings.format}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # another job may have found it empty at its end
            path = names.target(name, self.folder, extension=extension, overwrite=overwrite, tree=self.tree)
            self._before = path.read_bytes() if path.exists() else None
            write(embedding, path, overwrite=overwrite)
            return path
        except (EstimateError, OSError) as error:
            try:
                rescued = Path(tempfile.mkdtemp(prefix="embedding-estimate-")) / f"{name}.safetensors"
                write(embedding, rescued)
            except (EstimateError, OSError):
                raise EstimateError(f"{error}. The embedding is lost: estimate it again") from error
            raise EstimateError(f"{error}. The embedding is saved as {rescued} instead: move it from there") from error


def png(image: Image) -> bytes:
    """With a mark by which `ours` knows it again."""
    from PIL.PngImagePlugin import PngInfo

    data, mark = io.BytesIO(), PngInfo()
    mark.add_text("Software", SOFTWARE)
    image.save(data, "PNG", optimize=True, pnginfo=mark)
    return data.getvalue()


def ours(picture: Path) -> bool:
    """Whether a picture may be replaced: it is not there, or empty, or this program has made it."""
    from PIL import Image

    if not picture.exists() or not picture.stat().st_size:
        return True
    try:
        with Image.open(picture) as opened:
            return opened.info.get("Software") == SOFTWARE
    except OSError:
        return False
