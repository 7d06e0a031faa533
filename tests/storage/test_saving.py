"""Where results go."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from embedding_estimate.errors import EstimateError
from embedding_estimate.files import whole_file
from embedding_estimate.files.embedding import Embedding
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage import phrases, saving
from embedding_estimate.teaching.words import Word


@pytest.mark.parametrize(("tree", "folder"), [("/a/embeddings", "/a/embeddings-steps"), ("/", "/-steps")])
def test_what_is_no_embedding_goes_beside_the_tree(tree: str, folder: str) -> None:
    assert saving.beside(Path(tree), "steps") == Path(folder)


def test_a_picture_of_ours_is_known_again(tmp_path: Path) -> None:
    picture, path = Image.new("RGB", (2, 2)), tmp_path / "r.png"
    assert saving.ours(path)
    path.touch()
    assert saving.ours(path)
    path.write_bytes(saving.png(picture))
    assert saving.ours(path)
    picture.save(path)
    assert not saving.ours(path)


def test_an_embedding_is_rescued_though_nothing_can_be_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where another program holds the file of the first word open."""
    rescue = tmp_path / "rescue"
    rescue.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(rescue))
    unlink, move = Path.unlink, whole_file._move

    def held(path: Path, missing_ok: bool = False) -> None:
        if path == tmp_path / "it-a.safetensors":
            raise PermissionError(13, "is used by another program", str(path))
        unlink(path, missing_ok)

    def moved(source: Path, path: Path, overwrite: bool) -> None:
        if path.name == "it-b.safetensors" and rescue not in path.parents:
            raise OSError(28, "No space left on device")
        move(source, path, overwrite)

    monkeypatch.setattr(Path, "unlink", held)
    monkeypatch.setattr(whole_file, "_move", moved)
    words = [Word(1.5, (0,)), Word(0.6, (1,))]
    vectors = {"clip_l": torch.ones(2, 3)}
    both = Embedding("it", vectors, phrases.record_of("it", words, vectors))
    settings = Settings(text="(red:1.5) (circle:0.6)", name="it", words="One per weight")
    result = saving.Result(settings, tmp_path, StopToken(), on_note=lambda note: None)
    with pytest.raises(EstimateError, match=r"cannot be restored: .* The embedding is saved as .*it-a\.safetensors"):
        result.save(both)
    assert sorted(path.name for path in rescue.rglob("*.safetensors")) == ["it-a.safetensors", "it-b.safetensors"]
