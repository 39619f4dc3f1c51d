"""NumPy's files of anybody's: an .npz, of which the members that are asked for are read, and an .npy that is mapped.

An .npz is a zip of .npy files. What the zip says of a member (how it is packed, to how many bytes it unpacks) and what
the header of the .npy says (kind and shape) is compared before memory is taken. Nothing is ever unpickled.
"""

import ast
import contextlib
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from icre_jax.errors import UnreadableError
from icre_jax.files.regular import open_regular, size_of

MOST_BYTES = 256 * 2**30  # of a file: what is read of it is limited by memory alone
MOST_MEMBERS = 1_000
LONGEST_NAME = 200
# Packed files of numbers are a few times smaller than the numbers; labels, and rows of zeros, a hundred times.
MOST_UNPACKED = 2**28  # bytes that any file may unpack to
LARGEST_RATIO = 16  # times its own size that a larger one may: 50 MB of anybody's become 800 MB, not more than there is
LONGEST_HEADER = 4096  # bytes; that of a matrix has 118
_MOST_DIMENSIONS = 32
_CHUNK = 2**22
_MAGIC = b"\x93NUMPY"
_KIND = re.compile(r"[<>|=]?(?:[biufcSUV]\d{1,9}|[mM]8(?:\[\w{1,9}\])?|\?)")
_LITERAL = re.compile(rb"[\w <>|=?'\"{}(),:\[\]]+\n?")
_LAST_CHARACTER = 0x10FFFF
# The end of a zip that has no comment: [locator of the record for large ones, its signature first] end record.
_END, _LARGE_END, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_SIZE, _LARGE_END_SIZE, _LOCATOR_SIZE = 22, 56, 20


class Archive:
    """An open .npz; `open_archive` makes it.

    Attributes:
      names: of its arrays.
    """

    def __init__(self, path: Path, opened: zipfile.ZipFile):
        """Take a zip that was looked at."""
        self._path, self._opened = path, opened
        self._members = {info.filename.removesuffix(".npy"): info for info in opened.infolist()}
        self.names = tuple(self._members)

    def __getitem__(self, name: str) -> np.ndarray:
        """One array, read now.

        Raises:
          UnreadableError: there is none of this name, it is damaged, or holds anything but numbers or text.
        """
        if name not in self._members:
            raise UnreadableError(self._path, f"it holds no array {name!r}")
        info = self._members[name]
        try:
            with self._opened.open(info) as member:
                array = _read_array(member, info.file_size)
        except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error) as error:
            raise UnreadableError(self._path, f"{name}: {error or type(error).__name__}") from error
        except MemoryError as error:
            raise UnreadableError(self._path, f"{name} needs {info.file_size:,} bytes of memory") from error
        return array


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """The arrays of an .npz, as a context; no array is read yet.

    Raises:
      UnreadableError: as of `open_regular`; or it is no such archive within the limits above: how many members, how
        much they claim to unpack to; or a member is encrypted, named twice, or packed in another way than NumPy packs.
    """
    with open_regular(path, most_bytes=MOST_BYTES) as file:
        try:
            _look_at_end(file)
            file.seek(0)
            opened = zipfile.ZipFile(file)
            _look_at_members(opened.infolist(), size_of(file))
        except (ValueError, zipfile.BadZipFile, NotImplementedError, struct.error) as error:
            raise UnreadableError(path, str(error)) from error
        with opened:
            yield Archive(path, opened)


def map_array(path: Path) -> np.ndarray:
    """The array of an .npy, memory-mapped for reading.

    Raises:
      UnreadableError: as of `open_regular`; or it is no such file, or truncated, or holds anything but numbers or text.
    """
    with open_regular(path, most_bytes=2**50) as file:
        try:
            kind, shape, by_column = _read_header(file)
            offset = file.tell()
            _require_size(kind, shape, size_of(file) - offset)
            return np.memmap(file, kind, "r", offset, shape, "F" if by_column else "C")
        except ValueError as error:
            raise UnreadableError(path, str(error)) from error


def _look_at_end(file: BinaryIO) -> None:
    """Refuse a zip whose list of members is larger than that of arrays can be, as `zipfile` reads all of it."""
    size = size_of(file)
    if size < _END_SIZE:
        raise ValueError("it is no NumPy archive")
    file.seek(max(0, size - _END_SIZE - _LOCATOR_SIZE - _LARGE_END_SIZE))
    tail = file.read()
    end = tail[-_END_SIZE:]
    # With a comment, where the end is would be a matter of opinion.
    if end[:4] != _END or end[-2:] != b"\0\0":
        raise ValueError("it is no NumPy archive, or a truncated one")
    (listed,) = struct.unpack_from("<L", end, 12)
    if tail[-_END_SIZE - _LOCATOR_SIZE :][:4] == _LOCATOR:
        large = tail[: -_END_SIZE - _LOCATOR_SIZE]
        if len(large) == _LARGE_END_SIZE and large[:4] == _LARGE_END:
            (listed,) = struct.unpack_from("<Q", large, 40)
    if listed > MOST_MEMBERS * (LONGEST_NAME + 100):
        raise ValueError(f"its list of members has {listed:,} bytes, more than {MOST_MEMBERS:,} arrays need")


def _look_at_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"it has {len(members):,} members; at most {MOST_MEMBERS:,} are read")
    seen = set()
    for info in members:
        name = info.filename.removesuffix(".npy")
        if len(name) > LONGEST_NAME:
            raise ValueError(f"the name of a member has {len(name):,} characters; at most {LONGEST_NAME} are read")
        if name in seen:
            raise ValueError(f"it holds {name!r} twice")
        if info.flag_bits & 0x41:
            raise ValueError(f"{name!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name!r} is packed by method {info.compress_type}; deflate is read, or none")
        seen.add(name)
    unpacked, allowed = sum(info.file_size for info in members), max(MOST_UNPACKED, LARGEST_RATIO * size)
    if unpacked > allowed:
        raise ValueError(f"its {size:,} bytes claim to unpack to {unpacked:,}; at most {allowed:,} are read")


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
    """The array of an .npy of `size` bytes."""
    kind, shape, by_column = _read_header(file)
    _require_size(kind, shape, size - file.tell())
    array = np.empty(shape, kind, "F" if by_column else "C")
    flat = array.reshape(-1, order="A").view(np.uint8) if array.size and kind.itemsize else np.empty(0, np.uint8)
    wanted, there = flat.data, 0
    while there < len(wanted):
        chunk = file.read(min(_CHUNK, len(wanted) - there))
        if not chunk:
            raise ValueError("it is truncated")
        wanted[there : there + len(chunk)] = chunk
        there += len(chunk)
    if file.read(1):  # at the end, the checksum is compared
        raise ValueError("it is longer than it claims")
    if kind.kind == "U" and array.size and kind.itemsize:
        codes = array.astype(kind.newbyteorder("="), copy=False).reshape(-1, order="A").view(np.uint32)
        if codes.max() > _LAST_CHARACTER:
            raise ValueError("its text holds what is no character")
    return array


def _read_header(file: IO[bytes]) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Kind, shape and whether columns come first, of an .npy at its begin; the data follows.

    Raises:
      ValueError: it is none, or of objects or records.
    """
    start = file.read(8)
    if start[:6] != _MAGIC or start[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise ValueError("it is no NumPy array of format 1.0 or 2.0")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"its header has {length:,} bytes; at most {LONGEST_HEADER:,} are read")
    text = file.read(length)
    if len(text) != length:
        raise ValueError("it is truncated")
    header = _parse_header(text)
    kind, by_column, shape = header["descr"], header["fortran_order"], header["shape"]
    if isinstance(kind, str) and kind.lstrip("<>|=")[:1] == "O":
        raise ValueError("it holds objects, which would have to be unpickled; numbers and text are read")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise ValueError(f"its elements are {str(kind)[:100]!r}; numbers and text are read")
    if type(by_column) is not bool or type(shape) is not tuple or len(shape) > _MOST_DIMENSIONS:
        raise ValueError("its header is damaged")
    if not all(type(length) is int and 0 <= length < 2**63 for length in shape):
        raise ValueError("its header is damaged")
    try:
        return np.dtype(kind), shape, by_column
    except (TypeError, ValueError) as error:
        raise ValueError(f"its elements are {kind!r}; numbers and text are read") from error


def _parse_header(text: bytes) -> dict[str, Any]:
    try:
        if not _LITERAL.fullmatch(text):
            raise ValueError
        header = ast.literal_eval(text.decode("ascii"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header is damaged")
    return header


def _require_size(kind: np.dtype, shape: tuple[int, ...], there: int) -> None:
    needed = math.prod(shape) * kind.itemsize
    if needed != there:
        raise ValueError(f"it claims {needed:,} bytes of {kind} {list(shape)}, and holds {there:,}")
