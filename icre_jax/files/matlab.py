"""Cells and matrices of numbers in MATLAB 5 files (what MATLAB writes as -v6 and -v7, and scipy by `savemat`).

scipy reads these files in C, and some damaged ones end its process. The layout is small (MathWorks, "MAT-File Format",
chapter 1): a header of 128 bytes, then elements of a tag (type, size) and bytes; a matrix is an element of elements:
flags, dimensions, name, and its numbers, or its cells, which are matrices again.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from icre_jax.errors import UnreadableError
from icre_jax.files.regular import read_bytes

MOST_BYTES = 32 * 2**20
MOST_UNPACKED = 128 * 2**20
MOST_ARRAYS = 100_000
_DEEPEST = 4  # cells in cells
_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14  # types of elements
# Types of elements that hold numbers; a matrix of doubles may be stored in any that loses nothing.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CELL = 1
# Classes of matrices: those of numbers, and what to call the others.
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_OTHERS = {2: "a struct", 3: "an object", 4: "a text", 5: "a sparse matrix", 16: "a function", 17: "an object"}
_IS_COMPLEX = 0x800

# A matrix of numbers; of a cell, an array of objects that are values again; of anything else, what it is in words.
Value = np.ndarray | str


def read_matlab(path: Path, wanted: str) -> dict[str, Value | None]:
    """The variables of a file by name: the value of `wanted`, None for all others.

    Raises:
      UnreadableError: as of `read_bytes`; or it is of another version, damaged, or larger than the limits above.
    """
    content = read_bytes(path, most_bytes=MOST_BYTES)
    try:
        return _Reader(content, wanted).variables
    except (ValueError, struct.error, zlib.error, TypeError, OverflowError) as error:
        raise UnreadableError(path, str(error)) from error


class _Reader:
    def __init__(self, content: bytes, wanted: str):
        orders = {b"IM": "<", b"MI": ">"}
        order = orders.get(content[126:_HEADER])
        if order is None or struct.unpack_from(f"{order}H", content, 124)[0] != 0x0100:
            raise ValueError("it is no MATLAB file of version 5 (save it with -v7)")
        self._order, self._left, self._num_arrays = order, MOST_UNPACKED, 0
        self.variables: dict[str, Value | None] = {}
        for kind, data in self._elements(memoryview(content)[_HEADER:]):
            kind, data = self._unpacked(data) if kind == _COMPRESSED else (kind, data)
            if kind != _MATRIX:
                raise ValueError(f"it holds an element of type {kind} where a variable should be")
            name, value = self._matrix(data, wanted, depth=0)
            self.variables[name] = value

    def _elements(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """(type, bytes) of every element, one after the other."""
        position = 0
        while position < len(data):
            kind, size = struct.unpack_from(f"{self._order}II", data, position)
            start = position + 8
            if kind >> 16:  # up to four bytes are stored in the tag
                kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
                if size > 4:
                    raise ValueError("an element is damaged")
            if start + size > len(data):
                raise ValueError("it is truncated")
            yield kind, data[start : start + size]
            padding = 0 if kind == _COMPRESSED else -size % 8
            position = position + 8 if start == position + 4 else start + size + padding

    def _unpacked(self, data: memoryview) -> tuple[int, memoryview]:
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(data, self._left + 1)
        self._left -= len(unpacked)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {MOST_UNPACKED:,} bytes")
        elements = list(self._elements(memoryview(unpacked)))
        if not unpacker.eof or len(elements) != 1:
            raise ValueError("it is truncated")
        return elements[0]

    def _matrix(self, data: memoryview, wanted: str | None, depth: int) -> tuple[str, Value | None]:
        """Name and value; `wanted` None takes any name."""
        self._num_arrays += 1
        if self._num_arrays > MOST_ARRAYS or depth > _DEEPEST:
            raise ValueError(f"it holds more than {MOST_ARRAYS:,} matrices, or cells more than {_DEEPEST} deep")
        if not len(data):
            return "", np.zeros((0, 0))
        elements = self._elements(data)
        flags = self._numbers(*next(elements, (0, data)), "u4")
        if len(flags) != 2:
            raise ValueError("a matrix is damaged")
        kind = int(flags[0]) & 0xFF
        shape = tuple(self._numbers(*next(elements, (0, data)), "i4").tolist())
        name = bytes(next(elements, (0, data[:0]))[1]).decode("latin-1")
        if wanted is not None and name != wanted:
            return name, None
        if not 2 <= len(shape) <= 8 or min(shape) < 0:
            raise ValueError("the dimensions of a matrix are damaged")
        if kind == _CELL:
            return name, self._cell(elements, shape, depth)
        if kind not in _CLASSES or int(flags[0]) & _IS_COMPLEX:
            return name, _OTHERS.get(kind, "complex numbers" if kind in _CLASSES else f"a matrix of class {kind}")
        numbers = self._numbers(*next(elements, (1, data[:0])), _CLASSES[kind])
        if len(numbers) != math.prod(shape):
            raise ValueError(f"a matrix of {list(shape)} holds {len(numbers):,} numbers")
        return name, numbers.reshape(shape, order="F")

    def _cell(self, elements: Iterator[tuple[int, memoryview]], shape: tuple[int, ...], depth: int) -> np.ndarray:
        values = []
        for kind, data in elements:
            if kind != _MATRIX:
                raise ValueError(f"a cell holds an element of type {kind}")
            values.append(self._matrix(data, None, depth + 1)[1])
        if len(values) != math.prod(shape):
            raise ValueError(f"a cell of {list(shape)} holds {len(values):,} values")
        cell = np.empty(len(values), object)
        for place, value in enumerate(values):
            cell[place] = value
        return cell.reshape(shape, order="F")

    def _numbers(self, kind: int, data: memoryview, wanted: str) -> np.ndarray:
        stored = np.dtype(self._order + _NUMBERS[kind]) if kind in _NUMBERS else None
        if stored is None or len(data) % stored.itemsize:
            raise ValueError("the numbers of a matrix are damaged")
        with np.errstate(all="ignore"):
            return np.frombuffer(data, stored).astype(wanted)
