"""JSON of anybody's: how deep, how many values and how long numbers are is looked at before objects are made of it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from icre_jax.errors import UnreadableError
from icre_jax.files.regular import read_bytes

MOST_BYTES = 32 * 2**20  # the identities of a network that knows a million
MOST_DEPTH = 64
MOST_VALUES = 4_000_000
MOST_DIGITS = 40
# A string to its end, or to that of the text: each is left behind at once, whatever is in it.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)


def read_json(path: Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """The value that a JSON file holds; arguments as of `read_bytes`.

    Raises:
      UnreadableError: as of `read_bytes`; or it is no JSON within the limits.
    """
    try:
        return parse_json(read_bytes(path, most_bytes=most_bytes))
    except ValueError as error:
        raise UnreadableError(path, str(error)) from error


def read_json_object(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """As `read_json`, of a file that must hold an object."""
    content = read_json(path, most_bytes=most_bytes)
    if not isinstance(content, dict):
        raise UnreadableError(path, f"it must hold an object, not {_describe(content)}")
    return content


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
      ValueError: it is none, or deeper, of more values or of longer numbers than the limits above; or an object names
        something twice.
    """
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    bare = _STRING.sub(b"", content)
    num_values = bare.count(b",") + bare.count(b"[") + bare.count(b"{") + 1
    if num_values > MOST_VALUES:
        raise ValueError(f"it holds up to {num_values:,} values; at most {MOST_VALUES:,} are read")
    depth = _depth(bare)
    if depth > MOST_DEPTH:
        raise ValueError(f"it is nested {depth:,} deep; at most {MOST_DEPTH} is read")
    return json.loads(
        content.decode("utf-8"), parse_int=_whole, parse_float=_fraction, object_pairs_hook=_without_repeats
    )


def _depth(bare: bytes) -> int:
    """How many brackets are open at most, in a text without its strings."""
    codes = np.frombuffer(bare, np.uint8) | 0x20  # "[" and "{" become one, as do "]" and "}"
    steps = (codes == ord("{")).astype(np.int8) - (codes == ord("}")).astype(np.int8)
    return int(np.cumsum(steps[steps != 0], dtype=np.int64).max(initial=0))


def _whole(text: str) -> int:
    return int(_short(text))


def _fraction(text: str) -> float:
    return float(_short(text))


def _short(text: str) -> str:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"it holds a number of {len(text):,} digits; at most {MOST_DIGITS} are read")
    return text


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object in it names {twice[:100]!r} twice")
    return content


def _describe(value: Any) -> str:
    kinds = {list: "a list", str: "a text", type(None): "null", bool: "a truth value"}
    return kinds.get(type(value), "a number")
