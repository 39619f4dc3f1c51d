"""`icre_jax.files.matlab`: the cells of numbers that SciPy reads, within limits."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from icre_jax.errors import UnreadableError
from icre_jax.files import matlab
from icre_jax.files.matlab import read_matlab


def as_lists(value):
    return [as_lists(inner) for inner in value.ravel()] if value.dtype == object else value


matrices = st.tuples(
    st.sampled_from(["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]),
    st.integers(0, 3),
    st.integers(0, 9),
    st.integers(0, 100),
).map(lambda drawn: (np.arange(drawn[1] * drawn[2]) % 7 + drawn[3]).astype(drawn[0]).reshape(drawn[1], drawn[2]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(matrices, max_size=4), max_size=4), st.booleans())
def test_cells_are_what_scipy_reads(tmp_path_factory, rows, compressed):
    path = tmp_path_factory.getbasetemp() / "cells.mat"
    outer = np.empty((len(rows), 1), object)
    for place, row in enumerate(rows):
        outer[place, 0] = np.empty((1, len(row)), object)
        for column, matrix in enumerate(row):
            outer[place, 0][0, column] = matrix
    savemat(path, {"first": np.ones((2, 2)), "cells": outer, "last": "text"}, do_compression=compressed)
    got, expected = read_matlab(path, "cells"), loadmat(path)
    assert list(got) == ["first", "cells", "last"]
    assert got["first"] is got["last"] is None
    cells = got["cells"]
    assert cells.shape == expected["cells"].shape
    for ours, theirs in zip(cells.ravel(), expected["cells"].ravel(), strict=True):
        assert ours.shape == theirs.shape
        for matrix, other in zip(ours.ravel(), theirs.ravel(), strict=True):
            assert matrix.shape == other.shape
            np.testing.assert_array_equal(matrix, other)


def test_what_is_no_number_is_named(tmp_path):
    path = tmp_path / "a.mat"
    for value, words in (("text", "a text"), ({"a": 1}, "a struct"), (np.ones(2, complex), "complex numbers")):
        savemat(path, {"x": value})
        assert read_matlab(path, "x") == {"x": words}
    savemat(path, {"x": 1}, format="4")
    with pytest.raises(UnreadableError, match="no MATLAB file of version 5"):
        read_matlab(path, "x")


def test_matlab_past_the_limits(tmp_path, monkeypatch):
    path = tmp_path / "a.mat"
    nested = np.ones(1)
    for _ in range(6):
        cell = np.empty((1, 1), object)
        cell[0, 0] = nested
        nested = cell
    savemat(path, {"x": nested})
    with pytest.raises(UnreadableError, match="cells more than 4 deep"):
        read_matlab(path, "x")
    savemat(path, {"x": np.zeros((1000, 1000))}, do_compression=True)
    monkeypatch.setattr(matlab, "MOST_UNPACKED", 2**20)
    with pytest.raises(UnreadableError, match="unpacks to more than 1,048,576 bytes"):
        read_matlab(path, "x")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_matlab_files_are_refused_or_give_numbers(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "mutant.mat"
    cell = np.empty((2, 1), object)
    cell[0, 0], cell[1, 0] = np.ones((10, 3)), np.zeros((0, 0))
    savemat(path, {"x": cell}, do_compression=data.draw(st.booleans()))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with contextlib.suppress(UnreadableError):
        read_matlab(path, "x")
