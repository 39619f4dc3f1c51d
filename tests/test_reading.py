"""`icre_jax.files`: regular files alone are opened, their size is looked at first; each format has tests of its own."""

import os
import socket
from pathlib import Path

import pytest

from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files import images
from icre_jax.files.arrays import map_array, open_archive
from icre_jax.files.json_files import read_json
from icre_jax.files.matlab import read_matlab
from icre_jax.files.regular import read_bytes
from icre_jax.files.texts import read_rows, read_text

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
