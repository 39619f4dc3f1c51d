"""An index on disk: what goes in comes out, what is deleted is gone, and whatever interrupts leaves a whole index."""

import contextlib
import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icre_jax.errors import InputError
from icre_jax.retrieval import index as module
from icre_jax.retrieval import storage
from icre_jax.retrieval.index import Entry, GalleryIndex
from icre_jax.sums import seal, unseal
from tests.conftest import ROOT

DIMENSIONS = 6


def entries_of(names, root="/gallery", modality="visible"):
    """One entry for each "person/file"."""
    return [Entry(name, name.rpartition("/")[0], i if i % 2 else None, modality, root) for i, name in enumerate(names)]


def vectors(number, seed=0):
    return np.random.default_rng(seed).standard_normal((number, DIMENSIONS)).astype(np.float32)


def unit(rows):
    """In float64, by another formula."""
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def index(tmp_path):
    names = ["anna/1.jpg", "anna/2.jpg", "bo/1.jpg", "loose.jpg", "bo/2.jpg"]
    return GalleryIndex.create(
        tmp_path / "index", vectors(5), entries_of(names), model_hash="a" * 64, origin="runs/mine",
        preprocessing={"image_size": [96, 48]},
    )  # fmt: skip


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_goes_in_comes_out(index, tmp_path):
    assert index.embeddings.dtype == np.float16
    assert isinstance(index.embeddings, np.memmap)
    np.testing.assert_allclose(index.embeddings, unit(vectors(5)), atol=5e-4)
    assert [entry.person for entry in index.entries] == ["anna", "anna", "bo", "", "bo"]
    assert [entry.camid for entry in index.entries] == [None, 1, None, 3, None]
    assert (len(index), index.num_persons) == (5, 3)  # the image of nobody known is one
    said = json.loads((tmp_path / "index" / "index.json").read_text())
    assert said["model_hash"] == "a" * 64
    assert (said["num_images"], said["dimensions"], said["preprocessing"]) == (5, DIMENSIONS, {"image_size": [96, 48]})
    assert said["created"] == said["changed"]
    assert said["created"].endswith("+00:00")
    assert sorted(contents(index.folder)) == ["embeddings-1.npy", "entries-1.csv", "index.json"]
    with (index.folder / "entries-1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {"path": "anna/2.jpg", "person": "anna", "camid": "1", "modality": "visible", "root": "0"}
    assert index.entries[1].file.as_posix() == "/gallery/anna/2.jpg"


# All that is text; other names are refused (tests/test_names.py).
LETTERS = st.characters(
    exclude_categories=("Cs", "Cc", "Zl", "Zp"),
    exclude_characters="\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
)
NAMES = st.text(LETTERS, min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(data=st.lists(st.tuples(NAMES, NAMES, st.none() | st.integers(0, 2**31)), min_size=1, unique_by=lambda t: t[0]))
def test_any_name_survives(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("index") / "it"
    entries = [Entry(path, person, camid, "infrared", '/r"o,o t') for path, person, camid in data]
    GalleryIndex.create(folder, vectors(len(data)), entries, model_hash="h")
    assert list(GalleryIndex.open(folder).entries) == entries


def test_blocks_are_one_array(index, tmp_path):
    blocks = (vectors(5)[start : start + 2] for start in (0, 2, 4))
    other = GalleryIndex.create(tmp_path / "other", blocks, index.entries, model_hash="h")
    np.testing.assert_array_equal(other.embeddings, index.embeddings)


def test_more_is_added_at_the_end(index):
    more = entries_of(["cy/1.jpg", "anna/1.jpg"], root="/elsewhere", modality="infrared")
    added = index.add(vectors(2, seed=1), more)
    for each in (added, GalleryIndex.open(index.folder)):
        assert list(each.entries) == [*index.entries, *more]
        np.testing.assert_array_equal(each.embeddings[:5], index.embeddings)  # to the bit: not rounded again
        np.testing.assert_allclose(each.embeddings[5:], unit(vectors(2, seed=1)), atol=5e-4)
    assert added.header.created == index.header.created
    assert added.header.roots == ["/gallery", "/elsewhere"]
    assert sorted(contents(index.folder)) == ["embeddings-2.npy", "entries-2.csv", "index.json"]


def test_what_is_deleted_is_in_no_file(index):
    rows = np.array(index.embeddings)
    smaller = index.delete(persons=["anna"], paths=["bo/2.jpg"])
    assert [entry.path for entry in smaller.entries] == ["bo/1.jpg", "loose.jpg"]
    np.testing.assert_array_equal(smaller.embeddings, rows[[2, 3]])
    everything = b"".join(contents(index.folder).values())
    assert b"anna" not in everything
    for row in (0, 1, 4):
        assert rows[row].tobytes() not in everything
    for row in (2, 3):
        assert rows[row].tobytes() in everything
    assert (index.folder / "embeddings-2.npy").stat().st_size < 128 + 2 * DIMENSIONS * 2 + 1
    np.testing.assert_array_equal(index.embeddings, rows)  # who had it open may read on


def test_an_image_is_deleted_from_the_folder_that_is_named(index):
    added = index.add(vectors(2), entries_of(["anna/1.jpg", "cy/1.jpg"], root="/other"))
    with pytest.raises(InputError, match=r"several images of this path.*\n  - /gallery/anna/1.jpg\n  - /other/anna/1"):
        added.delete(paths=["anna/1.jpg"])
    assert len(GalleryIndex.open(index.folder)) == len(added)
    smaller = added.delete(paths=["/other/anna/1.jpg", "cy/1.jpg"])
    assert smaller.entries == index.entries


def test_a_root_that_nobody_uses_any_more_is_forgotten(index):
    added = index.add(vectors(1), entries_of(["cy/1.jpg"], root="/secret"))
    assert added.header.roots == ["/gallery", "/secret"]
    assert added.delete(persons=["cy"]).header.roots == ["/gallery"]
    assert b"/secret" not in b"".join(contents(index.folder).values())


@pytest.mark.parametrize(
    ("persons", "paths", "words"),
    [
        (["anna", "dora"], [], "Nothing was deleted.*\n.*person 'dora'"),
        ([], ["anna/3.jpg"], "image 'anna/3.jpg'"),
        ([""], [], "person ''"),
        (["anna", "bo"], ["loose.jpg"], "Delete the whole folder"),
    ],
)
def test_a_deletion_that_cannot_be_done_changes_nothing(index, persons, paths, words):
    before = contents(index.folder)
    with pytest.raises(InputError, match=words):
        index.delete(persons=persons, paths=paths)
    assert contents(index.folder) == before


def test_images_are_listed_once(index, tmp_path):
    before = contents(index.folder)
    with pytest.raises(InputError, match=r"1 images are in the index already(.|\n)*/gallery/bo/1.jpg"):
        index.add(vectors(2), entries_of(["dora/1.jpg", "bo/1.jpg"]))
    with pytest.raises(InputError, match="named twice"):
        GalleryIndex.create(tmp_path / "new", vectors(2), entries_of(["a/1.jpg", "a/1.jpg"]), model_hash="h")
    assert contents(index.folder) == before


def test_what_cannot_be_indexed(index, tmp_path):
    broken = vectors(2)
    broken[1, 2] = np.nan
    two = entries_of(["a/1.jpg", "b/1.jpg"])
    with pytest.raises(InputError, match=r"The embedding of b/1\.jpg is not finite"):
        GalleryIndex.create(tmp_path / "new", broken, two, model_hash="h")
    with pytest.raises(InputError, match="no image"):
        GalleryIndex.create(tmp_path / "new", vectors(0), [], model_hash="h")
    with pytest.raises(ValueError, match="3 embeddings for 2 entries"):
        GalleryIndex.create(tmp_path / "new", vectors(3), two, model_hash="h")
    with pytest.raises(InputError, match="not valid UTF-8"):
        GalleryIndex.create(tmp_path / "new", vectors(1), entries_of(["\udcff.jpg"]), model_hash="h")
    with pytest.raises(InputError, match="exists already"):
        GalleryIndex.create(index.folder, vectors(2), two, model_hash="h")
    with pytest.raises(ValueError, match="size 3 do not fit an index of size 6"):
        index.add(vectors(2)[:, :3], two)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_another_network_is_refused(index):
    index.require_model("a" * 64, "runs/mine")
    with pytest.raises(InputError, match=r"another network than runs/new: with runs/mine of hash aaaaaaaaaaaa, .*bbbb"):
        index.require_model("b" * 64, "runs/new")


@pytest.mark.parametrize("change", ["add", "delete"])
@pytest.mark.parametrize("name", ["embeddings-2.npy", "entries-2.csv", "index.json"])
def test_a_write_that_fails_leaves_the_old_index(index, change, name, monkeypatch):
    """At every file of a change: the disk is full."""
    before = contents(index.folder)
    original = storage.whole_file

    def full(path, **flags):
        if path.name == name:
            raise OSError(28, "No space left on device")
        return original(path, **flags)

    monkeypatch.setattr(storage, "whole_file", full)
    write_file = storage.write_file

    def full_file(path, content, **flags):
        if path.name == name:
            raise OSError(28, "No space left on device")
        write_file(path, content, **flags)

    monkeypatch.setattr(storage, "write_file", full_file)
    with pytest.raises(OSError, match="No space"):
        index.delete(persons=["bo"]) if change == "delete" else index.add(vectors(1), entries_of(["cy/1.jpg"]))
    kept = contents(index.folder)
    assert {file: kept[file] for file in before} == before
    assert [entry.path for entry in GalleryIndex.open(index.folder).entries] == [e.path for e in index.entries]
    monkeypatch.undo()
    GalleryIndex.open(index.folder).delete(persons=["bo"])
    assert b"bo/" not in b"".join(contents(index.folder).values())
    assert len(contents(index.folder)) == 3


KILLED = """
import os, sys
from pathlib import Path
from icre_jax.retrieval import storage
from icre_jax.retrieval.index import GalleryIndex
original = getattr(storage, sys.argv[2])
def killed(*arguments, **flags):
    if sys.argv[3] in str(arguments[0]):
        os._exit(9)
    return original(*arguments, **flags)
setattr(storage, sys.argv[2], killed)
if sys.argv[2] == "remove_other_versions":
    from icre_jax.retrieval import index
    calls = []
    def killed(folder, version):
        calls.append(version)
        if len(calls) == 3:
            os._exit(9)
    index.remove_other_versions = killed
GalleryIndex.open(Path(sys.argv[1])).delete(persons=["anna"])
"""


@pytest.mark.parametrize(
    ("function", "at", "deleted"),
    [
        ("whole_file", "embeddings-2.npy", False),
        ("write_file", "entries-2.csv", False),
        ("write_file", "index.json", False),
        ("remove_other_versions", "never", True),
    ],
)
def test_a_process_that_is_killed_leaves_a_whole_index(index, function, at, deleted):
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(index.folder), function, at], cwd=ROOT, timeout=100, check=False
    )
    assert process.returncode == 9
    found = GalleryIndex.open(index.folder)
    assert {entry.person for entry in found.entries} == ({"bo", ""} if deleted else {"anna", "bo", ""})
    assert len(found.embeddings) == len(found.entries)
    # The next change leaves nothing of what was cut off.
    with pytest.raises(InputError) if deleted else contextlib.nullcontext():
        found.delete(persons=["anna"])
    assert b"anna" not in b"".join(contents(index.folder).values())
    assert len(contents(index.folder)) == 3


def test_what_writers_left_is_removed_and_nothing_else(index):
    left = ("embeddings-0.npy", "entries-7.csv", ".index.json.12.partial", ".embeddings-2.npy.34.partial")
    kept = ("notes.txt", "embeddings-1.npy.bak", ".lock")
    for name in (*left, *kept):
        (index.folder / name).touch()
    index.delete(persons=["anna"])
    assert {*contents(index.folder)} == {*kept, "embeddings-2.npy", "entries-2.csv", "index.json"}


def test_a_reader_finds_the_version_that_replaces_the_one_it_read_about(index, monkeypatch):
    headers = []

    def read(folder):
        headers.append(storage.read_header(folder))
        if len(headers) == 1:
            index.delete(persons=["anna"])
        return headers[-1]

    monkeypatch.setattr(module, "read_header", read)
    assert len(GalleryIndex.open(index.folder)) == 3
    assert [header.version for header in headers] == [1, 2]


def damage_header(change):
    def damage(folder):
        said = change(unseal(json.loads((folder / "index.json").read_text())))
        (folder / "index.json").write_text(json.dumps(seal(said) if isinstance(said, dict) else said))

    return damage


def without_seal(folder):
    said = unseal(json.loads((folder / "index.json").read_text()))
    (folder / "index.json").write_text(json.dumps(said))


def another_row(folder):
    rows = np.load(folder / "embeddings-1.npy")
    rows[3, 2] = -rows[3, 2]
    np.save(folder / "embeddings-1.npy", rows)


def pickled(folder):
    np.save(folder / "embeddings-1.npy", np.array([{}] * 5), allow_pickle=True)


DAMAGES = {
    "no header": lambda folder: (folder / "index.json").unlink(),
    "no embeddings": lambda folder: (folder / "embeddings-1.npy").unlink(),
    "cut": lambda folder: os.truncate(folder / "embeddings-1.npy", 150),
    "empty": lambda folder: os.truncate(folder / "embeddings-1.npy", 0),
    "another size": lambda folder: np.save(folder / "embeddings-1.npy", np.ones((4, DIMENSIONS), np.float16)),
    "another width": lambda folder: np.save(folder / "embeddings-1.npy", np.ones((5, DIMENSIONS), np.float32)),
    "pickled": pickled,
    "another list": lambda folder: (folder / "entries-1.csv").write_text("path,person,camid,modality,root\n"),
    "long list": lambda folder: (folder / "entries-1.csv").write_bytes(b"x" * 2**16),
    "no number": damage_header(lambda said: {**said, "num_images": "5"}),
    "another number": damage_header(lambda said: {**said, "num_images": 6}),
    "another row": another_row,
    "other sums": damage_header(lambda said: {**said, "embeddings_sha256": said["embeddings_sha256"][:1]}),
    "an older version": without_seal,
    "a later format": damage_header(lambda said: {**said, "format": 3}),
    "a field more": damage_header(lambda said: {**said, "more": 1}),
    "no object": damage_header(lambda said: [said]),
    "no json": lambda folder: (folder / "index.json").write_text("{"),
    "no text": lambda folder: (folder / "index.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_index_is_refused_in_clear_words(index, kind):
    DAMAGES[kind](index.folder)
    with pytest.raises(InputError, match=r"is damaged|is not the index of a gallery"):
        GalleryIndex.open(index.folder)
    with pytest.raises(InputError, match="is not the index"):
        GalleryIndex.open(index.folder / "nowhere")
