"""Exact search against a full sort in float64, ties, chunks, conversion, and memory."""

import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icre_jax.errors import InputError
from icre_jax.retrieval import products as module
from icre_jax.retrieval.products import to_float32
from icre_jax.retrieval.search import search
from icre_jax.retrieval.similarity import rounding_bound, score_pairs, sizes_by_largest, sizes_by_length
from tests.conftest import ROOT


def brute_force(queries, gallery, top):
    """A stable sort of everything, in float64."""
    similarity = queries.astype(np.float64) @ gallery.astype(np.float64).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :top]
    return order, np.take_along_axis(similarity, order, axis=1)


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks and blocks of a few rows."""
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 40)
    monkeypatch.setattr(module, "_BLOCK_ELEMENTS", 20)
    monkeypatch.setattr(module, "_CACHED_ELEMENTS", 12)
    monkeypatch.setattr(module, "_FEW", 4)


@pytest.mark.usefixtures("small_chunks")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_queries=st.integers(1, 9),
    num_rows=st.integers(1, 60),
    dimensions=st.integers(1, 9),
    top=st.integers(1, 70),
    width=st.sampled_from(["float16", "float32", "float64"]),
)
def test_it_is_a_full_sort_with_ties_in_the_order_of_the_gallery(seed, num_queries, num_rows, dimensions, top, width):
    rng = np.random.default_rng(seed)
    # Small whole numbers: products are exact in every width, and many are equal.
    queries = rng.integers(-2, 3, (num_queries, dimensions)).astype(np.float32)
    gallery = rng.integers(-2, 3, (num_rows, dimensions)).astype(width)
    found = search(queries, gallery, top=top)
    order, similarity = brute_force(queries, gallery, top)
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_array_equal(found.similarities, similarity)
    assert (found.indices.dtype, found.similarities.dtype) == (np.int64, np.float32)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("number", [3, 7])
def test_real_numbers_against_float64(number):
    rng = np.random.default_rng(0)
    queries, gallery = rng.standard_normal((number, 16)), rng.standard_normal((500, 16)).astype(np.float16)
    found = search(queries, gallery, top=12)
    order, similarity = brute_force(queries.astype(np.float32), gallery, 12)
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.similarities, similarity, rtol=1e-5, atol=1e-5)


def near_ties(rng, num_rows, dimensions):
    """Rows that differ in the last bit of one number, in random order: float32 sums cannot tell many of them apart."""
    row = rng.standard_normal(dimensions).astype(np.float16)
    gallery = np.tile(row, (num_rows, 1))
    gallery.view(np.uint16)[np.arange(num_rows), rng.integers(0, dimensions, num_rows)] ^= 1
    return gallery


@pytest.mark.parametrize("number", [1, 5, 100])  # both ways to multiply
@pytest.mark.parametrize("elements", [None, 4000])
def test_what_is_reported_depends_on_the_two_rows_alone(number, elements, monkeypatch):
    if elements is not None:
        for name in ("_CHUNK_ELEMENTS", "_BLOCK_ELEMENTS", "_CACHED_ELEMENTS"):
            monkeypatch.setattr(module, name, elements)
    rng = np.random.default_rng(5)
    gallery = near_ties(rng, 700, 257)
    queries = rng.standard_normal((100, 257)).astype(np.float32)[:number]
    found = search(queries, gallery, top=20)
    for query, indices, similarities in zip(queries[:5], found.indices, found.similarities, strict=False):
        # Products are exact in float64, and fsum rounds once.
        exact = np.array([math.fsum(query.astype(float) * row) for row in gallery.astype(float)]).astype(np.float32)
        order = np.argsort(-exact, kind="stable")[:20]
        np.testing.assert_array_equal(indices, order)
        assert similarities.tobytes() == exact[order].tobytes()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dimensions=st.integers(1, 3000),
    width=st.sampled_from(["float16", "float32"]),
    scale=st.sampled_from([1e-40, 1e-20, 1e-3, 1.0, 1e4]),
)
def test_float32_products_are_within_the_bound(seed, dimensions, width, scale):
    rng = np.random.default_rng(seed)
    queries = (rng.standard_normal((3, dimensions)) * scale).astype(np.float32)
    rows = rng.standard_normal((4, dimensions)).astype(width)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    bound = np.minimum(
        rounding_bound(dimensions, sizes_by_largest(queries, float(np.abs(rows).max()))),
        rounding_bound(dimensions, sizes_by_length(queries, float(lengths.max()))),
    )
    of, to = np.divmod(np.arange(12), 4)
    reported = score_pairs(queries, rows, of, to).reshape(3, 4).astype(np.float64)
    for order in (np.arange(dimensions), rng.permutation(dimensions)):
        running = np.cumsum(queries[:, None, order] * rows[None, :, order].astype(np.float32), axis=2)[..., -1]
        for product in (running, queries[:, order] @ rows[:, order].astype(np.float32).T):
            assert (np.abs(product - reported) <= bound[:, None]).all()


@pytest.mark.usefixtures("small_chunks")
def test_by_hand():
    gallery = np.array([[0, 1], [1, 0], [0.6, 0.8], [1, 0], [-1, 0]], np.float16)
    found = search(np.array([[1, 0], [0, 1]], np.float32), gallery, top=3)
    assert found.indices.tolist() == [[1, 3, 2], [0, 2, 1]]  # rows 1 and 3 are equal; 1, 3 and 4 as well
    np.testing.assert_allclose(found.similarities, [[1, 1, 0.6], [1, 0.8, 0]], atol=1e-3)


def test_every_finite_float16_is_converted_exactly():
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)].reshape(-1, 64)
    converted = to_float32(numbers, np.empty(numbers.shape, np.float32))
    np.testing.assert_array_equal(converted, numbers.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(converted), np.signbit(numbers))


@pytest.mark.parametrize("number", [2, 20])
@pytest.mark.parametrize("width", ["float16", "float32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(width, value, number):
    gallery = np.ones((5, 3), width)
    queries = np.ones((number, 3), np.float32)
    broken = gallery.copy()
    broken[3, 1] = value
    with pytest.raises(InputError, match="not finite"):
        search(queries, broken)
    queries[1, 0] = value
    with pytest.raises(InputError, match="A query has an embedding that is not finite"):
        search(queries, gallery)


@pytest.mark.parametrize(
    ("queries", "gallery", "top", "words"),
    [
        (np.ones((1, 3)), np.ones((4, 2)), 1, "3 dimensions, the gallery 2"),
        (np.ones((0, 3)), np.ones((4, 3)), 1, "at least one of each"),
        (np.ones((1, 3)), np.ones((0, 3)), 1, "at least one of each"),
        (np.ones(3), np.ones((4, 3)), 1, "at least one of each"),
        (np.ones((1, 3)), np.ones((4, 3), int), 1, "int64"),
        (np.ones((1, 3)), np.ones((4, 3)), 0, "top is 0"),
    ],
)
def test_bad_input(queries, gallery, top, words):
    with pytest.raises(InputError, match=words):
        search(queries, gallery, top=top)


def test_other_byte_orders_and_strides():
    rng = np.random.default_rng(1)
    gallery = rng.integers(-3, 4, (40, 12)).astype(np.float16)
    queries = rng.integers(-3, 4, (3, 6)).astype(np.float32)
    expected = search(queries, np.ascontiguousarray(gallery[::2, ::2]))
    for same in (gallery[::2, ::2], gallery[::2, ::2].astype(">f2"), np.asfortranarray(gallery[::2, ::2])):
        np.testing.assert_array_equal(search(queries, same).indices, expected.indices)


def test_many_threads_may_search_at_once():
    rng = np.random.default_rng(2)
    gallery, queries = rng.standard_normal((300, 8)).astype(np.float16), rng.standard_normal((4, 8))
    expected = search(queries, gallery).indices
    results = []
    threads = [threading.Thread(target=lambda: results.append(search(queries, gallery).indices)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all((found == expected).all() for found in results)


MEASURE = """
import resource, sys
import numpy as np
from icre_jax.retrieval.search import search
gallery = np.load(sys.argv[1], mmap_mode="r", allow_pickle=False)
queries = np.ones((64, gallery.shape[1]), np.float32)
search(queries, gallery[:32])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = search(queries, gallery).indices
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, found[0, 0])
"""


def test_memory_does_not_grow_with_the_gallery(tmp_path):
    """Beside the mapped file itself, which the system may drop at any time: less than half of it in float32."""
    shape = (2**16, 1024)
    with (tmp_path / "gallery.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        block = np.random.default_rng(0).standard_normal((shape[0] // 64, shape[1]), np.float32).astype(np.float16)
        for _ in range(64):
            file.write(block.tobytes())
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "gallery.npy")],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    mapped, in_float32 = 128, 256  # MiB
    assert float(process.stdout.split()[0]) < mapped + 100
    assert mapped + 100 < in_float32


@pytest.mark.slow
def test_a_million_rows_of_2048_within_8_gib(tmp_path):
    """What of the mapped file the system keeps included: all 4 GiB of it, or less."""
    shape = (1_000_000, 2048)
    path = tmp_path / "gallery.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 2 * (shape[0] - 1) * shape[1])  # zeros, which take no space on most file systems
        file.seek(0, os.SEEK_END)
        file.write(np.ones(shape[1], np.float16).tobytes())
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=1200, check=True
    )
    memory, best = process.stdout.split()
    print(f"{memory} MiB")
    assert float(memory) < 7 * 1024
    assert int(best) == shape[0] - 1  # all rows were read
