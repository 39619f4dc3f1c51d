"""Text of anybody's: lines, tables and whole numbers, none of them longer than people write them."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from icre_jax.errors import UnreadableError
from icre_jax.files.regular import read_bytes

MOST_BYTES = 256 * 2**20
MOST_LINES = 5_000_000
LONGEST_LINE = 2**16  # characters
LARGEST_NUMBER = 2**31 - 1


def read_text(path: Path, *, most_bytes: int = MOST_BYTES, longest_line: int = LONGEST_LINE) -> str:
    """A file of UTF-8, without the byte order mark that spreadsheets put in front.

    Args:
      path: of the file.
      most_bytes: the largest that is read.
      longest_line: characters between line feeds.

    Raises:
      UnreadableError: as of `read_bytes`; or it is no UTF-8, or has more or longer lines than the limits.
    """
    content = read_bytes(path, most_bytes=most_bytes)
    num_lines = content.count(b"\n") + 1
    if num_lines > MOST_LINES:
        raise UnreadableError(path, f"it has {num_lines:,} lines; at most {MOST_LINES:,} are read")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UnreadableError(path, f"line {number} is no UTF-8 text") from error
    longest = max(map(len, text.split("\n")))
    if longest > longest_line:
        raise UnreadableError(path, f"it has a line of {longest:,} characters; at most {longest_line:,} are read")
    return text


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, fields) of every row of a CSV file; errors as of `read_text`, or of a broken quote."""
    try:
        yield from parse_rows(read_text(path))
    except ValueError as error:
        raise UnreadableError(path, str(error)) from error


def parse_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """As `read_rows`, of a text.

    Raises:
      ValueError: it is no CSV, or has a field of more than 131,072 characters.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def whole_number(text: str, *, largest: int = LARGEST_NUMBER) -> int | None:
    """The number from 0 to `largest` that a text of the digits 0 to 9 says; None of any other text.

    Text of five thousand digits is an error to `int`, and a number that no array holds.
    """
    if not (text.isascii() and text.isdecimal()) or len(text.lstrip("0")) > len(str(largest)):
        return None
    number = int(text.lstrip("0") or "0")
    return number if number <= largest else None
