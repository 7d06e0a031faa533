"""The files of several words: saved together or not at all, whatever goes wrong."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from jobs.test_jobs import Place
from suites import quick_first
from toy import ToyHost

from embedding_estimate.errors import EstimateError, NameTaken
from embedding_estimate.files import whole_file
from embedding_estimate.files.embedding import Embedding, read
from embedding_estimate.progress import StopToken
from embedding_estimate.settings import Settings
from embedding_estimate.storage import saving
from embedding_estimate.storage.phrases import lacks, whole

TEXT = "(red:1.5) circle (blue:0.6)"
NAMES = ["it-a.safetensors", "it-b.safetensors", "it-c.safetensors"]
pytestmark = pytest.mark.usefixtures("brief")


@pytest.fixture
def place(toy_host: ToyHost, tmp_path: Path) -> Place:
    return Place(toy_host, tmp_path)


def words(place: Place, **settings: Any) -> Any:
    return place.finished(**{"text": TEXT, "tokens": 3, "words": "One per weight", **settings})


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def fail_at(monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
    """The n-th embedding that is written, or that gets its name, finds no room; those after it do."""
    real, done = getattr(whole_file, step), 0

    def failing(path: Path, *arguments: Any) -> None:
        nonlocal done
        if path.parent.name == "embeddings":
            done += 1
            if done == number:
                raise OSError(errno.ENOSPC, "no room")
        real(path, *arguments)

    monkeypatch.setattr(whole_file, step, failing)


def test_a_job_saves_a_file_for_each_word(place: Place) -> None:
    job = words(place)
    assert (job.state, job.problems) == ("done", [])
    assert job.saved and [path.name for path in job.saved.paths] == NAMES == sorted(held(place.embeddings))
    assert job.saved.estimate.phrase == "(it-a:1.5) it-b (it-c:0.6)"
    assert job.saved.report == place.reports / "it.png"
    for path, weight in zip(job.saved.paths, (1.5, 1, 0.6), strict=True):
        told = read(path).provenance
        assert (told["typed_weight"], told["phrase"]) == (weight, "(it-a:1.5) it-b (it-c:0.6)")
        assert told["fidelity"] is not None


@pytest.mark.parametrize("before", [{}, {"overwrite": True}], ids=["new", "overwriting"])
@pytest.mark.parametrize("number", quick_first(1, [2, 1, 3]))
@pytest.mark.parametrize("step", ["_write_through", "_move"])
def test_where_one_file_fails_none_is_left(
    place: Place, monkeypatch: pytest.MonkeyPatch, step: str, number: int, before: Mapping[str, bool]
) -> None:
    old = {}
    if before:
        words(place, seed=3, measure="Nothing")
        old = held(place.embeddings)
        assert len(old) == 3
    fail_at(monkeypatch, step, number)
    job = words(place, **before)
    assert job.state == "failed"
    assert (held(place.embeddings) if place.embeddings.exists() else {}) == old
    [line] = job.problems
    rescued = re.findall(r"[^ ]*/(it-[abc]\.safetensors)", line.partition("saved as ")[2])
    assert rescued == NAMES and "no room" in line
    [saved] = re.findall(r"saved as ([^ ,]+),", line)
    folder = Path(saved).parent
    assert [read(folder / name).tokens for name in NAMES] == [1, 1, 1]


def test_a_job_that_is_dropped_puts_all_files_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    words(place, seed=3, measure="Nothing")
    before = held(place.embeddings)
    save = saving.Result.save

    def dropping(result: saving.Result, embedding: Embedding) -> list[Path]:
        paths = save(result, embedding)
        assert held(place.embeddings) != before
        result.stop.stop(save=False)
        return paths

    monkeypatch.setattr(saving.Result, "save", dropping)
    assert words(place, overwrite=True).state == "dropped"
    assert held(place.embeddings) == before
    assert words(place, name="other").state == "dropped"
    assert held(place.embeddings) == before


def test_figures_that_do_not_fit_leave_the_words(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, "_write_through", 5)  # three words, and the first of them with its figures
    job = words(place)
    assert job.state == "done" and sorted(held(place.embeddings)) == NAMES
    assert any(note.endswith("The embedding is saved without its figures") for note in job.notes)
    assert [read(place.embeddings / name).provenance["phrase"] for name in NAMES] == ["(it-a:1.5) it-b (it-c:0.6)"] * 3


@pytest.mark.parametrize("taken", ["it.pt", "it-a.pt"])
def test_a_taken_name_is_told_at_once(place: Place, taken: str) -> None:
    place.embeddings.mkdir()
    (place.embeddings / taken).touch()
    with pytest.raises(NameTaken):
        words(place)
    assert place.jobs.latest is None


def test_the_name_of_a_further_word_is_told_before_the_training(place: Place) -> None:
    place.embeddings.mkdir()
    (place.embeddings / "it-c.pt").touch()
    job = words(place)
    assert job.state == "failed"
    assert job.problems == ["it-c: it-c.pt has this name already; choose another or overwrite it"]
    assert place.host.shown == [] and [path.name for path in place.embeddings.iterdir()] == ["it-c.pt"]


def test_snapshots_are_of_all_words(place: Place) -> None:
    job = words(place, learning_steps=4, save_every=2, text="(red:1.5) circle (blue:0.6) star", measure="Nothing")
    assert job.state == "done"
    folder = place.embeddings.with_name("embeddings-steps") / "it"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"it-{letter}-{step:06d}.safetensors" for letter in "abc" for step in (2, 4)
    ]


def test_one_word_is_saved_under_its_name(place: Place) -> None:
    job = place.finished(text="(red circle:1.3)", words="One per weight", measure="Nothing")
    assert job.saved and [path.name for path in job.saved.paths] == ["it.safetensors"]
    assert read(job.saved.path).provenance["typed_weight"] == 1.3


def test_a_result_may_be_asked_for_names(tmp_path: Path) -> None:
    settings = Settings(text=TEXT, name="it", words="One per weight")
    result = saving.Result(settings, tmp_path, StopToken(), on_note=lambda line: None)
    result.check(["it-a", "it-b"])
    (tmp_path / "it-b.pt").touch()
    with pytest.raises(EstimateError, match="it-b"):
        result.check(["it-a", "it-b"])


@pytest.mark.slow
def test_words_that_an_overwritten_embedding_has_no_more_are_told(place: Place) -> None:
    words(place)
    job = words(place, text="(red:1.5) circle", overwrite=True)
    assert sorted(held(place.embeddings)) == NAMES
    left = place.embeddings / "it-c.safetensors"
    assert f"{left}: left over from an earlier estimate and not a word of this one; remove it" in job.notes
    again = words(place, overwrite=True)
    assert not [note for note in again.notes if "no word of this one" in note]
    one = place.finished(overwrite=True)
    assert any(note.startswith(", ".join(str(place.embeddings / name) for name in NAMES)) for note in one.notes)


def test_no_word_has_its_name_before_all_are_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    for step in ("_write_through", "_move"):
        real = getattr(whole_file, step)

        def noted(path: Path, *arguments: Any, step: str = step, real: Any = real) -> None:
            if path.parent.name == "embeddings":
                steps.append(step)
            real(path, *arguments)

        monkeypatch.setattr(whole_file, step, noted)
    words(place)
    together = ["_write_through"] * 3 + ["_move"] * 3
    assert steps == 2 * together  # when they are trained, and with their figures


def test_words_know_those_that_were_made_with_them(place: Place, tmp_path: Path) -> None:
    """After a kill between two names, of overwritten words one may be of the estimate before."""
    first = words(place, measure="Nothing")
    (tmp_path / "old").mkdir()
    for path in first.saved.paths:
        (tmp_path / "old" / path.name).write_bytes(path.read_bytes())
    other: dict[str, Any] = {"seed": 5, "learning_steps": 4, "text": "(red:1.5) circle cat (blue:0.6)"}
    again = words(place, **other, overwrite=True, measure="Nothing")
    one, two, three = again.saved.paths
    assert [lacks(read(path), path) for path in again.saved.paths] == [[], [], []]
    two.write_bytes((tmp_path / "old" / two.name).read_bytes())
    said = "it-b.safetensors comes from another estimate; estimate them again"
    assert lacks(read(one), one) == lacks(read(three), three) == [said]
    with pytest.raises(EstimateError, match=re.escape(said)):
        whole(read(one), one)
    two.write_bytes(b"no embedding")
    [line] = lacks(read(one), one)
    assert line.startswith("it-b.safetensors: ")
    two.unlink()
    assert lacks(read(one), one) == ["it-b.safetensors is not in the same folder; put it there"]


def test_words_without_their_figures_belong_to_those_with_them(place: Place, tmp_path: Path) -> None:
    """After a kill between two names while the figures are written: the vectors are the same."""
    job = words(place, measure="Nothing")
    bare = job.saved.paths[1].read_bytes()
    [one, two, _] = words(place, overwrite=True).saved.paths
    assert read(one).provenance["fidelity"] is not None
    two.write_bytes(bare)
    assert read(two).provenance["fidelity"] is None and lacks(read(one), one) == []
