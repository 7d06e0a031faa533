"""Where results go."""

from pathlib import Path

import pytest
from PIL import Image

from embedding_estimate.storage import saving


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
