"""`icre_jax.files`: files of anybody's are looked at before they are read; and nobody else opens one."""

import contextlib
import io
import json
import os
import socket
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import loadmat, savemat

from configs import synthetic as synthetic_config
from icre_jax import embed as embed_command
from icre_jax.data.folders import write_manifest
from icre_jax.data.prepared import open_or_prepare
from icre_jax.data.reading import read_batches
from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files import images, json_files, matlab, texts
from icre_jax.files.arrays import map_array, open_archive
from icre_jax.files.images import UnusableImageError, load_image
from icre_jax.files.json_files import parse_json, read_json, read_json_object
from icre_jax.files.matlab import read_matlab
from icre_jax.files.regular import read_bytes
from icre_jax.files.texts import parse_rows, read_rows, read_text, whole_number
from icre_jax.settings import parse

READERS = {
    "bytes": lambda path: read_bytes(path, most_bytes=1000),
    "json": read_json,
    "text": read_text,
    "csv": lambda path: list(read_rows(path)),
    "npz": lambda path: open_archive(path).__enter__(),
    "npy": map_array,
    "mat": lambda path: read_matlab(path, "x"),
    "image": images.read_image,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_nothing_but_a_regular_file_is_opened_and_nothing_waits(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, words in (
            (tmp_path, "it is a folder, not a file"),
            (tmp_path / "pipe", "it is a named pipe, not a file"),
            (tmp_path / "socket", "it is a socket, not a file"),
            (Path("/dev/zero"), "it is a device, not a file"),
            (tmp_path / "absent", "there is no such file"),
            (tmp_path / "a\0b", "its name holds a null character"),
            (tmp_path / ("n" * 300), "File name too long"),
        ):
            with pytest.raises(UnreadableError) as caught:
                read(path)
            assert caught.value.reason == words
            assert str(caught.value).endswith(f" cannot be read: {words}.")


def test_the_size_is_looked_at_first(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(b"x" * 11)
    assert read_bytes(path, most_bytes=11) == b"x" * 11
    with pytest.raises(UnreadableError, match="it has 11 bytes; at most 10 are read"):
        read_bytes(path, most_bytes=10)
    with path.open("r+b") as file:
        file.truncate(2**40)  # holds nothing, and would fill any memory
    for read in READERS.values():
        with pytest.raises(UnreadableError, match=r"1,099,511,627,776 bytes|no NumPy array"):
            read(path)
    with pytest.raises(UnreadableError, match="it changed while it was read"):
        read_bytes(Path("/proc/self/status"), most_bytes=1000)


def test_the_missing_file_is_the_cause(tmp_path):
    with pytest.raises(UnreadableError) as caught:
        read_bytes(tmp_path / "absent", most_bytes=1)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert isinstance(caught.value, InputError)


def test_messages_do_not_move_the_cursor():
    assert str(InputError("a\x1b[2Jb\r\x07 \u202egnp.exe\nc\udcffä")) == "a\\x1b[2Jb\\r\\x07 \\u202egnp.exe\nc\\udcffä"
    assert str(InputError(join_findings(["a\x9bb"]))) == "  - a\\x9bb"
    assert str(InputError("plain: 3 ä\nb")) == "plain: 3 ä\nb"


# JSON


def test_json_within_the_limits(tmp_path):
    value = {"a": [1, -2.5, None, True, '[[[[{\\"', {"b": "\u00e9\\"}], "c": 10**18}
    (tmp_path / "a.json").write_text(json.dumps(value), encoding="utf-8")
    assert read_json(tmp_path / "a.json") == read_json_object(tmp_path / "a.json") == value
    deep = "[" * json_files.MOST_DEPTH + "]" * json_files.MOST_DEPTH
    assert json.dumps(parse_json(deep)) == deep
    assert parse_json('"' + "[" * 10_000 + '"') == "[" * 10_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 65 + "]" * 65, "nested 65 deep; at most 64"),
        ("[" * 1_000_000, "nested 1,000,000 deep; at most 64"),
        ('{"a":' * 100_000, "nested 100,000 deep"),
        ("9" * 5000, "number of 5,000 digits; at most 40"),
        ("[-" + "9" * 41 + "]", "number of 42 digits"),
        ("0." + "3" * 5000, "number of 5,002 digits"),
        ('{"a": 1, "b": 2, "a": 3}', "names 'a' twice"),
        ('{"a": 1', "Expecting"),
        ('"' + '\\"' * 500_000, "Unterminated string"),
        ('"abc\\', "Unterminated string"),
        ("", "Expecting value"),
        (b"\xff", "can't decode"),
    ],
)  # fmt: skip
def test_json_past_the_limits(text, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UnreadableError, match=words):
        read_json(path)


def test_json_of_too_many_values_or_another_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "MOST_VALUES", 10)
    assert parse_json('[1, 2, 3, ",,,,,,,,,,"]')[:3] == [1, 2, 3]
    with pytest.raises(ValueError, match="up to 12 values; at most 10"):
        parse_json("[1,2,3,4,5,6,7,8,9,10,11]")
    for text, words in (("[]", "a list"), ("null", "null"), ("true", "a truth value"), ("3", "a number"), ('""', "a")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(UnreadableError, match=f"it must hold an object, not {words}"):
            read_json_object(tmp_path / "a.json")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(values)
def test_any_json_is_read_as_pythons_own_reader_does(value):
    text = json.dumps(value)
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


class RepeatedError(Exception):
    """Python's own reader takes the last of two equal names."""


def read_without_repeats(text):
    try:
        return parse_json(text)
    except ValueError as error:
        raise (RepeatedError if "twice" in str(error) else error) from error


@settings(max_examples=200, deadline=None)
@given(st.text('[]{}"\\,a1:', max_size=40))
def test_what_pythons_own_reader_refuses_is_refused(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 (any)
            parse_json(text)
    else:
        with contextlib.suppress(RepeatedError):
            assert read_without_repeats(text) == expected


# Text


def test_text_and_its_limits(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\xc3\xa4\n")
    assert read_text(path).splitlines() == ["a", "bä"]
    path.write_bytes(b"a\nb\n\xff\n")
    with pytest.raises(UnreadableError, match="line 3 is no UTF-8 text"):
        read_text(path)
    path.write_bytes(b"a\n" + b"b" * 70_000)
    with pytest.raises(UnreadableError, match="a line of 70,000 characters; at most 65,536"):
        read_text(path)
    assert len(read_text(path, longest_line=70_000)) == 70_002
    monkeypatch.setattr(texts, "MOST_LINES", 3)
    path.write_bytes(b"\n" * 3)
    with pytest.raises(UnreadableError, match="it has 4 lines; at most 3"):
        read_text(path)


def test_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,"b\nc"\n\nd,"e""f"\n', encoding="utf-8-sig")
    assert list(read_rows(path)) == [(2, ["a", "b\nc"]), (3, []), (4, ["d", 'e"f'])]
    for text, words in (('a,"b', "unexpected end"), ('"a"b', "expected after"), ('"' + "a\n" * 70_000, "field larger")):
        path.write_text(text)
        with pytest.raises(UnreadableError, match=words):
            list(read_rows(path))
        with pytest.raises(ValueError, match=words):
            list(parse_rows(text))


def test_whole_numbers():
    assert [whole_number(text) for text in ("0", "007", "2147483647", "0" * 5000 + "3")] == [0, 7, 2**31 - 1, 3]
    for text in ("", "-1", "+1", " 1", "1.0", "1_0", "٣", "²", "2147483648", "9" * 5000):
        assert whole_number(text) is None
    assert whole_number("12", largest=11) is None


# Arrays


def savez(path: Path, save=np.savez, **members) -> Path:
    save(path, **members)
    return path


def read_all(path: Path) -> dict[str, np.ndarray]:
    with open_archive(path) as archive:
        return {name: archive[name] for name in archive.names}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_what_numpy_reads(save, tmp_path):
    rng = np.random.default_rng(0)
    members = {
        "plain": rng.normal(size=(3, 4)), "by_column": np.asfortranarray(rng.normal(size=(3, 4, 5)).astype(np.float32)),
        "big": rng.integers(0, 99, 5).astype(">i4"), "none": np.zeros((0, 3)), "one": np.float16(3),
        "true": np.ones(3, bool),
        "text": np.array(["a", "äöü", ""]), "bytes": np.array([b"a", b"bc"]), "long": np.array("x" * 100_000),
        "complex": np.ones(2, complex), "days": np.array(["2020-01-01"], "M8[D]"), "folder/name": np.arange(3),
    }  # fmt: skip
    path = savez(tmp_path / "a.npz", save, **members)
    got = read_all(path)
    assert list(got) == list(members)
    with np.load(path, allow_pickle=False) as expected:
        for name, array in got.items():
            assert array.dtype == expected[name].dtype
            np.testing.assert_array_equal(array, expected[name])
            assert array.flags.f_contiguous == expected[name].flags.f_contiguous
            assert array.flags.writeable


def test_only_what_is_asked_for_is_read(tmp_path):
    path = savez(tmp_path / "a.npz", good=np.arange(3), pickled=np.array([1, None], object))
    with open_archive(path) as archive:
        assert archive["good"].tolist() == [0, 1, 2]
        with pytest.raises(UnreadableError) as caught:
            archive["pickled"]
        assert "pickled: it holds objects, which would have to be unpickled" in str(caught.value)
        assert "allow_pickle" not in str(caught.value)
        with pytest.raises(UnreadableError, match="it holds no array 'absent'"):
            archive["absent"]


def write_zip(path: Path, *members, method=zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            file.writestr(name, content)
    return path


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def with_header(text: str, content: bytes = b"", version=b"\x01\x00") -> bytes:
    width = "<H" if version[0] == 1 else "<I"
    return b"\x93NUMPY" + version + struct.pack(width, len(text)) + text.encode() + content


def change(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def test_archives_past_the_limits(tmp_path):
    path, three = tmp_path / "a.npz", npy(np.arange(3))

    def refused(words):
        with pytest.raises(UnreadableError, match=words):
            read_all(path)

    write_zip(path, ("a.npy", three), ("a.npy", three))
    refused("holds 'a' twice")
    write_zip(path, ("a.npy", three), ("a", three))
    refused("holds 'a' twice")
    write_zip(path, ("a.npy", three), method=zipfile.ZIP_BZIP2)
    refused("'a' is packed by method 12; deflate is read, or none")
    write_zip(path, *((f"{number}.npy", b"") for number in range(1001)))
    refused("it has 1,001 members; at most 1,000")
    write_zip(path, *(("n" * 5000 + str(number), b"") for number in range(200)))
    refused("its list of members has 1,0.* bytes, more than 1,000 arrays need")
    write_zip(path, ("n" * 300, b""))
    refused("the name of a member has 300 characters; at most 200")
    write_zip(path, ("a.npy", three))
    flagged = bytearray(path.read_bytes())
    flagged[flagged.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(flagged)
    refused("'a' is encrypted")
    write_zip(path, ("a.npy", three))
    path.write_bytes(path.read_bytes() + b"more")
    refused("no NumPy archive, or a truncated one")
    with zipfile.ZipFile(path, "w") as file:
        file.comment = b"a comment"
        file.writestr("a.npy", three)
    refused("no NumPy archive, or a truncated one")
    write_zip(path, ("a.npy", three))
    change(path, three[-8:], b"\7" * 8)
    refused("a: Bad CRC-32")


def test_bombs_are_not_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    # An honest bomb: 300 MiB of zeros in a file of 1 MiB. No features are so regular.
    packer, parts = zlib.compressobj(1), []
    for _ in range(300):
        parts.append(packer.compress(bytes(2**20)))
    write_zip(path, ("a.npy", b"".join([*parts, packer.flush()])))
    content = path.read_bytes()
    for signature, packed_at, method_at in ((b"PK\3\4", 18, 8), (b"PK\1\2", 20, 10)):
        place = content.index(signature)
        head = bytearray(content[place : place + 46])
        head[method_at : method_at + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        head[packed_at + 4 : packed_at + 8] = struct.pack("<L", 300 * 2**20)
        content = content[:place] + bytes(head) + content[place + 46 :]
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=r"claim to unpack to 314,572,800; at most 268,435,456 are read"):
        read_all(path)
    # One that lies: its header promises more than there is.
    lying = with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }", b"12345678")
    write_zip(path, ("a.npy", lying))
    with pytest.raises(UnreadableError, match=r"claims 8,000,000,000,000 bytes of float64 .*, and holds 8"):
        read_all(path)


HEADERS = {
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }": "objects, which would have to be unpickled",
    "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }": "its elements are .* numbers and text",
    "{'descr': '<f8,<f8', 'fortran_order': False, 'shape': (1,), }": "its elements are '<f8,<f8'",
    "{'descr': '(9,)f8', 'fortran_order': False, 'shape': (1,), }": "its elements are",
    "{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }": "its elements are '<f3'",
    "{'descr': '<f8', 'fortran_order': 0, 'shape': (1,), }": "its header is damaged",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (True,), }": "its header is damaged",
    "{'descr': '<f8', 'fortran_order': False, 'shape': [1], }": "its header is damaged",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }": "its header is damaged",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'more': 1}": "its header is damaged",
    "{'descr': '<f8', 'fortran_order': False}": "its header is damaged",
    "__import__('os').abort()": "its header is damaged",
    "(" * 4000: "its header is damaged",
    "{" * 4000: "its header is damaged",
    "not " * 1000: "its header is damaged",
    "9" * 4000: "its header is damaged",
    " " * 5000: "its header has 5,000 bytes; at most 4,096",
    "": "its header is damaged",
}


@pytest.mark.parametrize("text", HEADERS)
@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00"])
def test_headers_are_literals_of_numbers_and_text(text, version, tmp_path):
    content = with_header(text, bytes(8), version)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UnreadableError, match=HEADERS[text]):
        map_array(tmp_path / "a.npy")
    with pytest.raises(UnreadableError, match=HEADERS[text]):
        read_all(write_zip(tmp_path / "a.npz", ("a.npy", content)))


def test_text_that_is_none(tmp_path):
    content = with_header("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", b"\xff\xff\xff\x7f")
    with pytest.raises(UnreadableError, match="no character"):
        read_all(write_zip(tmp_path / "a.npz", ("a.npy", content)))
    with pytest.raises(UnreadableError, match=r"no NumPy array of format 1\.0 or 2\.0"):
        read_all(write_zip(tmp_path / "a.npz", ("a.npy", b"\x93NUMPY\x03\x00" + bytes(100))))


def test_a_mapped_array(tmp_path):
    path, array = tmp_path / "a.npy", np.arange(12, dtype=np.float16).reshape(3, 4)
    np.save(path, array)
    mapped = map_array(path)
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == np.float16
    np.testing.assert_array_equal(mapped, array)
    assert not mapped.flags.writeable
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnreadableError, match=r"claims 24 bytes of float16 \[3, 4\], and holds 23"):
        map_array(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_archives_are_refused_or_give_plain_arrays(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "mutant.npz"
    np.savez_compressed(path, features=np.eye(3, dtype=np.float32), pid=np.arange(3), names=np.array(["a", "b"]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with contextlib.suppress(UnreadableError):
        got = read_all(path)
        assert all(array.dtype != object and array.nbytes < 10_000 for array in got.values())


# MATLAB


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


# Images


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_pixels_are_counted_before_any_is_decoded():
    data = encode(Image.new("RGB", (50, 40)))
    assert load_image(data, max_pixels=2000).size == (50, 40)
    with pytest.raises(UnusableImageError, match="50 x 40 pixels; at most 1,999 in all are allowed"):
        load_image(data, max_pixels=1999)
    # A header alone: nothing that could be decoded follows.
    header = struct.pack(">II5B", 50_000, 40_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    with pytest.raises(UnusableImageError, match="more than 89,000,000 pixels; at most 25,000,000"):
        load_image(bomb)


def test_the_limit_of_pixels_can_be_set(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (50, 40)).save(file)
    assert next(read_batches([file], (8, 4), 1, max_pixels=2000)).shape == (1, 8, 4, 3)
    with pytest.raises(InputError, match=r"a\.png: 50 x 40 pixels; at most 1,999 in all are allowed"):
        list(read_batches([file], (8, 4), 1, max_pixels=1999))
    embed = ["--network", "synthetic", "--images", str(file.parent), "--modality", "visible", "--out"]
    with pytest.raises(InputError, match="at most 1,999 in all are allowed"):
        embed_command.main([*embed, str(tmp_path / "o.npz"), "--max_pixels", "1999"])
    with pytest.raises(InputError, match="max_pixels is 0; a whole number from 1 to 89,000,000 is needed"):
        embed_command.main([*embed, str(tmp_path / "o.npz"), "--max_pixels", "0"])
    config = synthetic_config.get_config()
    for value, words in ((0, "greater than or equal to 1"), (89_000_001, "less than or equal to 89000000")):
        config.data.max_pixels = value
        with pytest.raises(InputError, match=rf"data\.max_pixels = {value}: .*{words}"):
            parse(config)


def test_an_image_past_the_limit_is_not_prepared(tmp_path):
    for split, person in (("train", "1"), ("query", "2"), ("gallery", "2")):
        for modality in ("visible", "infrared"):
            folder = tmp_path / "own" / split / modality / person
            folder.mkdir(parents=True)
            Image.new("RGB", (10, 20)).save(folder / f"{split}.png")
    write_manifest(tmp_path / "own")
    words = r"(?s)6 of 6 images .*: 10 x 20 pixels; at most 199 .*--config\.data\.max_pixels=N"
    with pytest.raises(InputError, match=words):
        open_or_prepare("manifest", tmp_path / "own", tmp_path / "records", max_pixels=199)


def test_several_images_in_a_file_are_refused():
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    for kind in ("PNG", "MPO"):
        with pytest.raises(UnusableImageError, match="3 images in one file; store the one that is meant"):
            load_image(encode(pages[0], kind, save_all=True, append_images=pages[1:]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_truncated_images_are_refused(kind):
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 20, 3), np.uint8)), kind)
    for length in (0, 1, 20, len(data) // 2, len(data) - 30):
        with pytest.raises(UnusableImageError):
            load_image(data[:length])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_images_are_refused_or_give_pixels(data):
    kind, mode = data.draw(
        st.sampled_from([("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "P"), ("BMP", "RGB"), ("BMP", "P")])
    )
    content = bytearray(encode(Image.new(mode, (9, 7), 3), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(UnusableImageError):
            assert load_image(bytes(content), max_pixels=10_000).width
