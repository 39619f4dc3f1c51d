"""SHA-256 of what the project writes and reads again: the files of a folder, blocks of a file, a JSON document.

A folder has its list beside the files: `sha256sum -c SHA256SUMS` in it reads it too. The comments at its end have the
sizes, in the order of the lines, and the hash of all lines above, so that a damaged list is not taken for damaged
files. Sums find damage; they are no signature.
"""

import concurrent.futures
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from icre_jax.errors import UnreadableError
from icre_jax.files import write_file
from icre_jax.files.regular import open_regular
from icre_jax.files.texts import read_text

SUMS = "SHA256SUMS"
SEAL = "sha256_of_the_rest"
_LARGEST = 16 * 2**20  # a hundred thousand files
_LARGEST_FILE = 2**50
_SIZES = "# bytes: "
_END = "# sha256 of the lines above: "


class _Listed(NamedTuple):
    digest: str
    size: int | None  # lists of older versions have none


def write_sums(folder: Path, *, leave_out: Collection[str] = ()) -> None:
    """Write the list of a folder that is complete and has no name yet, or nobody else writes to.

    Args:
      folder: whose files, at any depth, are listed.
      leave_out: files by name, relative to `folder`, that are none of it.

    Raises:
      OSError: a file cannot be read, or the list cannot be written.
    """
    names = sorted(_files(folder) - {SUMS, *leave_out})
    listed = {}
    for name, digest in zip(names, _hash_files(folder / name for name in names), strict=True):
        if isinstance(digest, OSError):
            raise digest
        listed[name] = _Listed(digest, (folder / name).stat().st_size)
    _write(folder, listed)


def list_anew(folder: Path, name: str) -> None:
    """Put a file that came to a folder later, or is another one now, into the list that is there.

    Raises:
      OSError: it cannot be read, or the list cannot be written.
      ValueError: the list cannot be read; find_damage says why.
    """
    listed = _read(folder / SUMS)
    if isinstance(listed, str):
        raise ValueError(listed)
    entry = _Listed(hash_file(folder / name), (folder / name).stat().st_size)
    if listed.get(name) != entry:
        _write(folder, {**listed, name: entry})


def find_damage(
    folder: Path,
    *,
    leave_out: Collection[str] = (),
    only: Collection[str] = (),
    by_size: Callable[[str], bool] = lambda name: False,
) -> list[str]:
    """What is not as it was when it was listed, a few words for each file.

    Args:
      folder, leave_out: as of `write_sums`.
      only: files, and folders with all that is in them, that are looked at; nothing for all.
      by_size: whether of the file of this name no more than its size is compared, as its parts have sums of their own.
    """
    listed = _read(folder / SUMS)
    if isinstance(listed, str):
        return [listed]

    def wanted(name: str) -> bool:
        return name not in leave_out and (not only or any(name == one or name.startswith(f"{one}/") for one in only))

    listed = {name: entry for name, entry in listed.items() if wanted(name)}
    found = _files(folder, only) - {SUMS, *leave_out}
    findings = [f"{name} is missing" for name in sorted(listed.keys() - found)]
    findings += [f"{name} was not there when it was saved" for name in sorted(found - listed.keys())]
    to_hash = []
    for name in sorted(listed.keys() & found):
        size = _size(folder / name)
        if size is not None and listed[name].size not in (None, size):
            findings.append(f"{name} has {size:,} bytes, and {listed[name].size:,} were saved")
        elif not by_size(name):
            to_hash.append(name)
    for name, actual in zip(to_hash, _hash_files(folder / name for name in to_hash), strict=True):
        if isinstance(actual, OSError):
            findings.append(f"{name} cannot be read ({actual.strerror})")
        elif actual != listed[name].digest:
            findings.append(f"{name} has the sha256 {actual[:12]}, and {listed[name].digest[:12]} was saved")
    return findings


def hash_file(path: Path) -> str:
    """sha256 of a file, as hex.

    Raises:
      OSError: it cannot be read, or is no regular file.
    """
    try:
        with open_regular(path, most_bytes=_LARGEST_FILE) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except UnreadableError as error:
        raise OSError(0, error.reason) from error


def hash_blocks(blocks: Iterable[Any]) -> list[str]:
    """sha256 of each, bytes or an array without gaps, as hex; several at a time."""
    return _at_once(lambda block: hashlib.sha256(block).hexdigest(), blocks)


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with the hash of all that is in it, whatever way it is laid out in a file."""
    return {**content, SEAL: _hash_json(content)}


def unseal(content: Any) -> dict[str, Any]:
    """What was given to `seal`, from what `read_json` gave.

    Raises:
      ValueError: it is no object, has no hash, or is not as it was sealed.
    """
    if not isinstance(content, dict):
        raise ValueError("it must hold an object")
    rest = {name: value for name, value in content.items() if name != SEAL}
    if content.get(SEAL) != _hash_json(rest):
        raise ValueError(f"it is not as it was written: its {SEAL} {'differs' if SEAL in content else 'is missing'}")
    return rest


def _hash_files(paths: Iterable[Path]) -> list[str | OSError]:
    """`hash_file` of each, or its error."""

    def look(path: Path) -> str | OSError:
        try:
            return hash_file(path)
        except OSError as error:
            return error

    return _at_once(look, paths)


def _at_once(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Hashing lets other threads run."""
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def _files(folder: Path, only: Collection[str] = ()) -> set[str]:
    """Names, relative to the folder, of all that is in it but folders."""
    places = (path for name in only or ("",) for path in (folder / name, *(folder / name).rglob("*")))
    return {path.relative_to(folder).as_posix() for path in places if path.is_symlink() or _is_file(path)}


def _is_file(path: Path) -> bool:
    return path.exists() and not path.is_dir()


def _size(path: Path) -> int | None:
    """None where it cannot be had; reading the file then says why."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _write(folder: Path, listed: dict[str, _Listed]) -> None:
    names = sorted(listed)
    lines = "".join(f"{listed[name].digest}  {name}\n" for name in names)
    if all(entry.size is not None for entry in listed.values()):
        lines += f"{_SIZES}{' '.join(str(listed[name].size) for name in names)}\n"
    write_file(folder / SUMS, f"{lines}{_END}{_hash(lines)}\n")


def _read(path: Path) -> dict[str, _Listed] | str:
    """Name -> what is listed; or in words why it cannot be had."""
    try:
        text = read_text(path, most_bytes=_LARGEST, longest_line=_LARGEST)
    except UnreadableError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        return f"{SUMS} is missing" if missing else f"{SUMS} cannot be read ({error.reason})"
    lines, _, end = text.rpartition(_END)
    if end != f"{_hash(lines)}\n":
        return f"{SUMS}, the list of its sums, is not as it was saved"
    lines, _, last = lines.partition(_SIZES)
    try:
        pairs = [line.split("  ", 1) for line in lines.splitlines()]
        sizes = [int(size) for size in last.split()] if last else [None] * len(pairs)
        return {name: _Listed(digest, size) for (digest, name), size in zip(pairs, sizes, strict=True)}
    except ValueError:
        return f"{SUMS} is no list of sums"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hash_json(content: dict[str, Any]) -> str:
    return _hash(json.dumps(content, sort_keys=True))
