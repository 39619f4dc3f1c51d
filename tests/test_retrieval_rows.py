"""Rows of an index and their sums: what is hashed, what a part of them is compared with, what is refused unread."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icre_jax.errors import InputError
from icre_jax.fleet.searching import _Shard
from icre_jax.identify.searching import ENGINES
from icre_jax.retrieval import rows
from icre_jax.retrieval.index import Entry, GalleryIndex
from icre_jax.retrieval.rows import compare_rows, map_rows, write_rows
from tests.damage import flip

SIZE = 3


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ROWS", 4)


def write(path, number, cuts=()):
    values = np.random.default_rng(number).normal(size=(number, SIZE)).astype(np.float32)
    blocks = np.split(values, sorted(cuts)) if cuts else [values]
    return write_rows(path, blocks, num_rows=number, dimensions=SIZE, name=str)


@given(st.data())
def test_sums_are_those_of_the_bytes_however_they_came(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    number = data.draw(st.integers(1, 13))
    sums = write(path, number, data.draw(st.lists(st.integers(0, number), max_size=4)))
    content = path.read_bytes()
    first = len(content) - 2 * SIZE * number
    parts = [content[:first], *(content[i : i + 4 * 2 * SIZE] for i in range(first, len(content), 4 * 2 * SIZE))]
    assert sums == [hashlib.sha256(part).hexdigest() for part in parts]
    mapped = map_rows(path, sums, num_rows=number, dimensions=SIZE)
    np.testing.assert_array_equal(mapped, np.load(path))
    assert compare_rows(mapped, sums, range(number)) == []


def test_a_part_is_compared_and_no_more(tmp_path):
    path = tmp_path / "rows.npy"
    sums = write(path, 10)
    first = path.stat().st_size - 2 * SIZE * 10
    flip(path, first + 2 * SIZE * 5 + 1, 0)  # in row 5
    mapped = map_rows(path, sums, num_rows=10, dimensions=SIZE)
    seen = [row for row in range(10) if compare_rows(mapped, sums, range(row, row + 1))]
    assert seen == [4, 5, 6, 7]  # its block
    assert compare_rows(mapped, sums, range(2, 9)) == ["rows 4 to 7 are not what was written"]
    flip(path, first + 2 * SIZE * 9, 0)
    assert compare_rows(mapped, sums, range(10))[1] == "rows 8 to 9 are not what was written"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_rows": 9}, "its first bytes are not what was written"),
        ({"num_rows": 11}, "its first bytes are not what was written"),
        ({"num_rows": 40}, "are not those of 40 rows of 3"),
        ({"dimensions": 2**30}, "are not those of"),
        ({"sums": []}, "0 sums are not those of 10 rows"),
        ({"sums": ["0"] * 4}, "its first bytes are not what was written"),
    ],
)
def test_what_does_not_fit_is_refused_unread(tmp_path, change, words):
    how = {"sums": write(tmp_path / "rows.npy", 10), "num_rows": 10, "dimensions": SIZE} | change
    with pytest.raises(ValueError, match=words):
        map_rows(tmp_path / "rows.npy", how.pop("sums"), **how)


def test_whoever_searches_compares_what_is_searched(tmp_path):
    values = np.random.default_rng(0).normal(size=(12, SIZE)).astype(np.float32)
    entries = [Entry(f"{i}.jpg", str(i), None, "visible", "/") for i in range(12)]
    folder = GalleryIndex.create(tmp_path / "index", values, entries, model_hash="a").folder
    file = folder / "embeddings-1.npy"
    flip(file, file.stat().st_size - 1, 5)  # in the last row
    index = GalleryIndex.open(folder, compare=False)
    for engine in ENGINES.values():
        with pytest.raises(InputError, match=r"is damaged \(embeddings-1.npy: rows 8 to 11 are not what was written\)"):
            engine(values[:1], index, 2)
    assert _Shard().open(folder, index.header, range(6)) == ""
    assert "rows 8 to 11 are not what was written" in _Shard().open(folder, index.header, range(6, 12))
    with pytest.raises(InputError, match="rows 8 to 11"):
        index.require_whole()
    for change in (lambda: GalleryIndex.open(folder).add(values[:1], entries[:1]), lambda: GalleryIndex.open(folder)):
        with pytest.raises(InputError, match="rows 8 to 11"):
            change()
