"""Names of files, as lists, folders and indexes of anybody's give them."""

import unicodedata
from pathlib import Path

# Letters that turn the direction of what follows: with them "gpj.exe" reads as "exe.jpg".
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_KINDS = {"Cc": "a control character", "Zl": "a line break", "Zp": "a line break"}


def is_file(path: Path) -> bool:
    """Whether a regular file is there, or a link to one; no name that a list may hold is an error here."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, links in circles, a null character
        return False


def find_name_defect(name: str) -> str | None:
    """Why a name cannot stand in a list, a table or on a page; None if it can."""
    if name.isascii() and name.isprintable():
        return None
    for letter in name:
        kind = unicodedata.category(letter)
        if kind == "Cs":
            return "it is not valid UTF-8"
        if kind in _KINDS:
            return f"it holds {_KINDS[kind]}, {ascii(letter)[1:-1]}"
        if letter in _TURNING:
            return f"it holds {ascii(letter)[1:-1]}, which turns the direction of reading"
    return None
