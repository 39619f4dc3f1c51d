"""A gallery searched in parts is the whole gallery searched, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icre_jax.retrieval.merging import divide, merge
from icre_jax.retrieval.search import Found, search


def search_parts(queries, gallery, ranges, top):
    parts = []
    for rows in ranges:
        found = search(queries, gallery[rows.start : rows.stop], top=top)
        parts.append(Found(found.indices + rows.start, found.similarities))
    return parts


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_queries=st.sampled_from([1, 4, 120]),
    num_rows=st.integers(1, 80),
    num_parts=st.integers(1, 9),
    top=st.integers(1, 90),
    whole_numbers=st.booleans(),
)
def test_parts_are_the_whole(seed, num_queries, num_rows, num_parts, top, whole_numbers):
    rng = np.random.default_rng(seed)
    if whole_numbers:  # many ties
        gallery = rng.integers(-1, 2, (num_rows, 3)).astype(np.float16)
        queries = rng.integers(-1, 2, (num_queries, 3)).astype(np.float32)
    else:
        gallery = rng.standard_normal((num_rows, 33)).astype(np.float16)
        queries = rng.standard_normal((num_queries, 33)).astype(np.float32)
    whole = search(queries, gallery, top=top)
    parts = search_parts(queries, gallery, divide(num_rows, num_parts), top)
    found = merge([parts[i] for i in rng.permutation(len(parts))], top=top)
    np.testing.assert_array_equal(found.indices, whole.indices)
    assert found.similarities.tobytes() == whole.similarities.tobytes()
    assert (found.indices.dtype, found.similarities.dtype) == (np.int64, np.float32)


def test_by_hand():
    first = Found(np.array([[1, 0]]), np.array([[0.9, 0.5]], np.float32))
    second = Found(np.array([[7, 5]]), np.array([[0.9, 0.7]], np.float32))
    found = merge([second, first], top=3)
    assert found.indices.tolist() == [[1, 7, 5]]
    assert found.similarities.tolist() == [[np.float32(0.9), np.float32(0.9), np.float32(0.7)]]


@given(num_rows=st.integers(1, 10**9), num_parts=st.integers(1, 50))
def test_shares_are_contiguous_and_even(num_rows, num_parts):
    shares = divide(num_rows, num_parts)
    assert len(shares) == min(num_rows, num_parts)
    assert [share.start for share in shares] == [0, *(share.stop for share in shares[:-1])]
    assert shares[-1].stop == num_rows
    sizes = {len(share) for share in shares}
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("rows", "parts"), [(0, 1), (3, 0)])
def test_nothing_cannot_be_divided(rows, parts):
    with pytest.raises(ValueError, match="cannot be divided"):
        divide(rows, parts)
