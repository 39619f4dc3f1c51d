"""Products that XLA has compiled find what NumPy finds, bit for bit."""

import numpy as np
import pytest

from icre_jax.engine import host_search
from icre_jax.engine.host_search import search_index, search_on_host
from icre_jax.errors import InputError
from icre_jax.retrieval.index import Entry, GalleryIndex
from icre_jax.retrieval.search import search
from tests.test_retrieval_search import near_ties

SIZE = 48


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of four rows, 128 at a time, so that a small gallery has whole ones and a rest."""
    monkeypatch.setattr(host_search, "_CACHED_ELEMENTS", 4 * SIZE)


def assert_same(found, other):
    np.testing.assert_array_equal(found.indices, other.indices)
    assert found.similarities.tobytes() == other.similarities.tobytes()


@pytest.mark.parametrize("number", [1, 3, 8, 30, 100])  # one by one, together, and more than are compiled for
@pytest.mark.parametrize("num_rows", [10, 128, 1001])
def test_it_finds_what_numpy_finds(number, num_rows):
    rng = np.random.default_rng(number)
    queries = rng.standard_normal((number, SIZE)).astype(np.float32)
    gallery = rng.standard_normal((num_rows, SIZE)).astype(np.float16)
    assert_same(search_on_host(queries, gallery, top=12), search(queries, gallery, top=12))
    lengths = np.linalg.norm(gallery.astype(np.float64), axis=1)
    assert_same(
        search_on_host(queries, gallery, top=12, longest=float(lengths.max())), search(queries, gallery, top=12)
    )


def test_the_compiled_product_is_used(monkeypatch):
    used = []
    compiled = host_search._multiply
    monkeypatch.setattr(host_search, "_multiply", lambda *args, **kw: used.append(1) or compiled(*args, **kw))
    gallery = np.random.default_rng(0).standard_normal((200, SIZE)).astype(np.float16)
    search_on_host(gallery[:1], gallery)
    assert len(used) == 1  # of 128 rows; 72 are left to NumPy


def test_near_ties():
    rng = np.random.default_rng(5)
    gallery, queries = near_ties(rng, 700, SIZE), rng.standard_normal((2, SIZE)).astype(np.float32)
    assert_same(search_on_host(queries, gallery, top=20), search(queries, gallery, top=20))
    longest = float(np.linalg.norm(gallery.astype(np.float64), axis=1).max())
    assert_same(search_on_host(queries, gallery, top=20, longest=longest), search(queries, gallery, top=20))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.astype(np.float32),
        lambda rows: rows.astype(">f2"),
        np.asfortranarray,
        lambda rows: np.repeat(rows, 2, axis=0)[::2],
    ],
)
def test_rows_that_lie_otherwise(change):
    gallery = np.random.default_rng(1).standard_normal((150, SIZE)).astype(np.float16)
    assert_same(search_on_host(gallery[:2], change(gallery)), search(gallery[:2], gallery))


@pytest.mark.parametrize("longest", [None, 1.0])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value, longest):
    gallery = np.ones((130, SIZE), np.float16)
    gallery[70, 5] = value
    with pytest.raises(InputError, match="not finite"):
        search_on_host(np.ones((1, SIZE), np.float32), gallery, longest=longest)


def test_where_jax_has_no_cpu_numpy_multiplies(monkeypatch):
    def none_there(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(host_search.jax, "local_devices", none_there)
    gallery = np.random.default_rng(2).standard_normal((100, SIZE)).astype(np.float16)
    assert_same(search_on_host(gallery[:2], gallery), search(gallery[:2], gallery))


def test_an_index(tmp_path):
    rng = np.random.default_rng(3)
    entries = [Entry(f"{i}.png", f"{i}", None, "visible", "images") for i in range(150)]
    index = GalleryIndex.create(tmp_path / "index", rng.standard_normal((150, SIZE)), entries, model_hash="0" * 64)
    lengths = np.linalg.norm(index.embeddings.astype(np.float64), axis=1)
    assert np.abs(lengths - 1).max() < 0.01
    queries = rng.standard_normal((3, SIZE)).astype(np.float32)
    assert_same(search_index(queries, index, top=5), search(queries, index.embeddings, top=5))
    with pytest.raises(ValueError, match="must be of length 1"):
        GalleryIndex.create(tmp_path / "other", np.ones((150, SIZE), np.float16), entries, model_hash="0" * 64)
