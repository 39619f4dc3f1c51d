"""`icre_jax.files.arrays`: what NumPy reads, nothing unpickled, and no more than there is."""

import contextlib
import io
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icre_jax.errors import UnreadableError
from icre_jax.files import arrays
from icre_jax.files.arrays import map_array, open_archive


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


def test_a_large_file_may_unpack_to_sixteen_times_its_size(tmp_path, monkeypatch):
    """By a hundred times, 50 MB could claim 5 GB, more than an attack may take."""
    monkeypatch.setattr(arrays, "MOST_UNPACKED", 2**20)
    noise = np.random.default_rng(0).integers(0, 256, 2**17, np.uint8)
    for times, fits in ((14, True), (18, False)):
        path = savez(tmp_path / f"{times}.npz", np.savez_compressed, a=np.pad(noise, (0, (times - 1) * len(noise))))
        if fits:
            assert len(read_all(path)["a"]) == times * len(noise)
        else:
            with pytest.raises(
                UnreadableError, match=r"claim to unpack to 2,359,\d{3}; at most 2,\d{3},\d{3} are read"
            ):
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
