"""Damage, drawn by number: mutant i of a file is the same on every machine."""

import re
import struct
from collections.abc import Sequence

import numpy as np

# What a reader may take for a length, a count or an offset.
_LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
# What stands where a text has a number.
_NUMBERS = (
    b"0", b"-1", b"4294967296", b"9223372036854775808", b"1" + b"0" * 400, b"9" * 5000, b"1e400", b"-1e-400", b"NaN",
    b"Infinity", b"0x7f", "\u0663".encode(), b"1_000", b"",
)  # fmt: skip
# What stands in the middle of anything.
_WORDS = (
    b"\0" * 64, b"\xff" * 64, b"\x1b]0;x\x07\x1b[2J", b"\xed\xb2\x80\xc3\x28", b"../../../../etc/passwd",
    b"%s%n{0}{}", b"[" * 50_000,
    b'{"a":' * 20_000, b'"' * 3, b"\r\n\r\n", b"PK\x05\x06" + b"\0" * 18, b"__import__('os').system('true')",
    b"cos\nsystem\n(S'true'\ntR.", "\u202e\u2066\ufeff".encode(), b"<script>alert(1)</script>", b"A" * 300_000,
)  # fmt: skip


def mutate(data: bytes, number: int, others: Sequence[bytes] = ()) -> tuple[str, bytes]:
    """Mutant `number` of a file.

    Args:
      data: the sound file.
      number: which of its mutants.
      others: files that parts may come from.

    Returns:
      What was done, in a few words, and the bytes.
    """
    draw = np.random.default_rng((len(data), number))
    kinds = (_flip, _truncate, _copy, _delete, _length, _number, _word, _splice, _noise, _swap)
    names, content = [], bytearray(data)
    # Mostly one change; several where one alone would be found at once.
    for _ in range(int(draw.choice([1, 1, 1, 2, 4]))):
        kind = kinds[int(draw.integers(len(kinds)))]
        content = bytearray(kind(bytes(content), draw, others))
        names.append(kind.__name__.strip("_"))
    return "+".join(names), bytes(content)


def _place(data: bytes, draw: np.random.Generator) -> int:
    """Anywhere; half of the time near an end, where headers and directories are."""
    if len(data) < 2:
        return 0
    near = min(len(data), 256)
    start = {0: 0, 1: len(data) - near}.get(int(draw.integers(4)))
    return int(draw.integers(len(data))) if start is None else start + int(draw.integers(near))


def _flip(data: bytes, draw: np.random.Generator, _: Sequence[bytes]) -> bytes:
    content = bytearray(data)
    for _number in range(int(draw.integers(1, 9))):
        if content:
            content[_place(data, draw)] ^= 1 << int(draw.integers(8))
    return bytes(content)


def _truncate(data: bytes, draw: np.random.Generator, _: Sequence[bytes]) -> bytes:
    return data[: _place(data, draw)]


def _copy(data: bytes, draw: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """A block a second time, or a thousand times."""
    start, size = _place(data, draw), int(draw.integers(1, 4096))
    times = int(draw.choice([1, 1, 16, 1000])) if size < 256 else 1
    return data[:start] + data[start : start + size] * times + data[start:]


def _delete(data: bytes, draw: np.random.Generator, _: Sequence[bytes]) -> bytes:
    start = _place(data, draw)
    return data[:start] + data[start + int(draw.integers(1, 4096)) :]


def _length(data: bytes, draw: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """Four or eight bytes are a large number of either byte order."""
    start, value = _place(data, draw), _LENGTHS[int(draw.integers(len(_LENGTHS)))]
    order, size = "<>"[int(draw.integers(2))], int(draw.choice([2, 4, 8]))
    field = struct.pack(f"{order}Q", value)
    field = field[:size] if order == "<" else field[-size:]
    return data[:start] + field + data[start + size :]


def _number(data: bytes, draw: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """One of the numbers of a text is another."""
    found = [*re.finditer(rb"\d+(?:\.\d+)?", data[: 2**20])]
    if not found:
        return _length(data, draw, others)
    start, end = found[int(draw.integers(len(found)))].span()
    return data[:start] + _NUMBERS[int(draw.integers(len(_NUMBERS)))] + data[end:]


def _word(data: bytes, draw: np.random.Generator, _: Sequence[bytes]) -> bytes:
    start, word = _place(data, draw), _WORDS[int(draw.integers(len(_WORDS)))]
    return data[:start] + word + data[start + (len(word) if draw.integers(2) and len(word) < 1000 else 0) :]


def _splice(data: bytes, draw: np.random.Generator, others: Sequence[bytes]) -> bytes:
    other = others[int(draw.integers(len(others)))] if others else data[::-1]
    return data[: _place(data, draw)] + other[_place(other, draw) :]


def _noise(data: bytes, draw: np.random.Generator, _: Sequence[bytes]) -> bytes:
    start, size = _place(data, draw), int(draw.integers(1, 512))
    return data[:start] + draw.bytes(size) + data[start + size :]


def _swap(data: bytes, draw: np.random.Generator, _: Sequence[bytes]) -> bytes:
    """Two words of a text change places, or two halves of anything."""
    found = [*re.finditer(rb'"[^"\\]{1,64}"|[A-Za-z_]{2,64}', data[: 2**20])]
    if len(found) < 2:
        half = _place(data, draw)
        return data[half:] + data[:half]
    a, b = sorted(draw.choice(len(found), 2, replace=False).tolist())
    (first, second), (third, fourth) = found[a].span(), found[b].span()
    return data[:first] + data[third:fourth] + data[second:third] + data[first:second] + data[fourth:]
