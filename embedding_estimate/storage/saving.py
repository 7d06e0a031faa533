"""Saves the results of a job. Folders are tried before the work starts, so that no result is lost at its end."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from embedding_estimate.errors import EmbeddingError, EstimateError, NameTaken
from embedding_estimate.files import names
from embedding_estimate.files.whole_file import remove_abandoned, temporary_beside, write_whole
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import ONE_WORD, Settings

if TYPE_CHECKING:
    from PIL.Image import Image

    from embedding_estimate.files.embedding import Embedding

SOFTWARE = "Embedding Estimate"
ROOM = 2**20  # bytes that must fit: more than an embedding of any model has


@contextmanager
def creating(folder: Path) -> Iterator[None]:
    """Raises `EmbeddingError` if the folder cannot be created within."""
    try:
        yield
    except OSError as error:
        raise EmbeddingError(
            f"{folder}: cannot be created ({error.strerror or error}); choose another folder"
        ) from error


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Makes a folder with its parents for the time of the work. Folders that are empty afterwards are removed again.

    Raises `EmbeddingError` if the folder cannot be made or written.
    """
    missing: list[Path] = []
    try:
        with creating(folder):
            missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
            folder.mkdir(parents=True, exist_ok=True)
        _try_writing(folder)
        yield
    finally:
        for parent in missing:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def _try_writing(folder: Path) -> None:
    """Writes and removes a file of the size of a large embedding, because permissions do not show a full disk.

    Removes abandoned temporary files of killed programs first.
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
    """The folder TREE-what, for files that are not embeddings: WebUIs may load a picture in TREE as an embedding."""
    return tree.parent / f"{tree.name}-{what}"


def check_report(report: Path | None, embeddings: Path | None) -> str:
    """Raises `EmbeddingError` if the report cannot be saved there. Returns a warning if it lies among the
    embeddings."""
    if report is None:
        return ""
    folder = report.parent
    if not folder.is_dir():
        raise EmbeddingError(f"{folder}: is not a folder; create it or put the report elsewhere")
    if report.is_dir():
        raise EmbeddingError(f"{report}: is a folder; give the report another name")
    if not ours(report):
        raise NameTaken(f"{report}: exists and was not made by this program; give the report another name")
    _try_writing(folder)
    if embeddings and embeddings.resolve() in report.resolve().parents:
        return f"{report} is in the folder of embeddings, where a WebUI may take a picture for an embedding"
    return ""


def check_names(settings: Settings, folder: Path, tree: Path | None = None) -> None:
    """Checks the names as far as they are known before the model is loaded. `Result.check` checks all of them later.

    Raises what `names.target` raises.
    """
    mine = [settings.name] if settings.words == ONE_WORD else [settings.name, names.of_words(settings.name, 2)[0]]
    _targets(settings, mine, folder, tree)


def _targets(settings: Settings, mine: Iterable[str], folder: Path, tree: Path | None) -> list[Path]:
    """The paths for embeddings with these names."""
    extension = f".{settings.format}"
    return [names.target(name, folder, extension=extension, overwrite=settings.overwrite, tree=tree) for name in mine]


def listed(paths: Iterable[Path]) -> str:
    """Paths in one line, separated by commas."""
    return ", ".join(map(str, paths))


class Result:
    """The files of a job's embedding, one for each word. They are saved together as soon as the training ends, and
    saved once more with their figures.

    As a context manager it restores the old files if the job is discarded, whatever ended it.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        stop: StopToken,
        *,
        tree: Path | None = None,
        on_note: Callable[[str], None],
    ):
        """The name must be new in the folder `tree`.

        `on_note` gets a line if the figures cannot be saved, and a line about words of an earlier embedding of this
        name.
        """
        self.settings = settings
        self.folder = folder
        self.stop = stop
        self.tree = tree
        self.on_note = on_note
        self.paths: list[Path] = []  # once they are there
        self._before: dict[Path, bytes | None] = {}  # the old content of overwritten paths

    def __enter__(self) -> Result:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.stop.dropped:
            self._put_back()

    def _put_back(self) -> None:
        for path, before in self._before.items():
            if before is None:
                path.unlink(missing_ok=True)
            else:
                write_whole(path, before)

    def check(self, mine: Iterable[str]) -> None:
        """Raises what `names.target` raises if an embedding cannot be saved under one of these names."""
        _targets(self.settings, mine, self.folder, self.tree)

    def save(self, embedding: Embedding) -> list[Path]:
        """Writes each word of the embedding under its name. If the first save fails, all of them go to the system's
        folder for temporary files.

        Raises `EstimateError` that says what went wrong and where the embedding is now.
        """
        from embedding_estimate.files.embedding import write_together
        from embedding_estimate.storage.phrases import parts_of

        parts = parts_of(embedding)
        if not self.paths:
            self.paths = self._first(parts)
            if left := self._left_over():
                self.on_note(
                    f"{listed(left)}: left over from an earlier estimate and not a word of this one; remove it"
                )
            return self.paths
        try:
            write_together(dict(zip(self.paths, parts, strict=True)), overwrite=True)
        except EstimateError as error:
            self.on_note(f"{error}. The embedding is saved without its figures")
        return self.paths

    def _left_over(self) -> list[Path]:
        """Files of words of an overwritten embedding with this name that the new one does not have."""
        if not self.settings.overwrite:
            return []
        folder, suffix = self.paths[0].parent, self.paths[0].suffix
        mine = [self.settings.name, *names.of_words(self.settings.name, len(names.LETTERS))]
        candidates = [folder / f"{name}{suffix}" for name in mine]
        return [path for path in candidates if path not in self.paths and path.exists()]

    def _first(self, parts: Sequence[Embedding]) -> list[Path]:
        from embedding_estimate.files.embedding import write, write_together

        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # another job may have removed it as empty
            paths = _targets(self.settings, (part.name for part in parts), self.folder, self.tree)
            held = {path: path.read_bytes() if path.exists() else None for path in paths}
            write_together(
                dict(zip(paths, parts, strict=True)),
                overwrite=self.settings.overwrite,
                on_moved=lambda path: self._before.update({path: held[path]}),
            )
            return paths
        except (EstimateError, OSError) as error:
            reason = str(error)
            try:
                self._put_back()
            except (EstimateError, OSError) as second:
                reason = f"{reason}. The overwritten file cannot be restored: {second}"
            self._before.clear()
            try:
                folder = Path(tempfile.mkdtemp(prefix="embedding-estimate-"))
                rescued = [folder / f"{part.name}.safetensors" for part in parts]
                for part, path in zip(parts, rescued, strict=True):
                    write(part, path)
            except (EstimateError, OSError):
                raise EstimateError(f"{reason}. The embedding is lost: estimate it again") from error
            there = listed(rescued)
            raise EstimateError(f"{reason}. The embedding is saved as {there} instead: move it from there") from error


def png(image: Image) -> bytes:
    """The image as PNG, with a mark by which `ours` recognises it."""
    from PIL.PngImagePlugin import PngInfo

    data, mark = io.BytesIO(), PngInfo()
    mark.add_text("Software", SOFTWARE)
    image.save(data, "PNG", optimize=True, pnginfo=mark)
    return data.getvalue()


def ours(picture: Path) -> bool:
    """Whether a picture may be replaced: it does not exist, is empty, or was made by this program."""
    from PIL import Image

    if not picture.exists() or not picture.stat().st_size:
        return True
    try:
        with Image.open(picture) as opened:
            return opened.info.get("Software") == SOFTWARE
    except OSError:
        return False
