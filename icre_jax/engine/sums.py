"""SHA-256 of every file of a folder, beside them: `sha256sum -c SHA256SUMS` in the folder reads them too.

The last line is a comment with the hash of the lines above it, so that a damaged list is not taken for damaged files.
Sums find damage; they are no signature.
"""

import concurrent.futures
import hashlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path

SUMS = "SHA256SUMS"
_LARGEST = 16 * 2**20  # a hundred thousand files
_END = "# sha256 of the lines above: "


def write_sums(folder: Path, *, leave_out: Collection[str] = ()) -> None:
    """Write the list of a folder that is complete and has no name yet, or nobody else writes to.

    Args:
      folder: whose files, at any depth, are listed.
      leave_out: files by name, relative to `folder`, that are none of it.

    Raises:
      OSError: a file cannot be read, or the list cannot be written.
    """
    names = sorted(_files(folder) - {SUMS, *leave_out})
    sums = _hash_files(folder / name for name in names)
    for found in sums:
        if isinstance(found, OSError):
            raise found
    text = "".join(f"{found}  {name}\n" for found, name in zip(sums, names, strict=True))
    (folder / SUMS).write_bytes(f"{text}{_END}{_hash(text)}\n".encode())


def find_damage(folder: Path, *, leave_out: Collection[str] = (), only: str = "") -> list[str]:
    """What is not as it was when `write_sums` listed it, a few words for each file.

    Args:
      folder, leave_out: as of `write_sums`.
      only: how the names of those files begin that are looked at.
    """
    expected = _read(folder / SUMS)
    if isinstance(expected, str):
        return [expected]
    expected = {name: digest for name, digest in expected.items() if name.startswith(only)}
    found = {name for name in _files(folder) - {SUMS, *leave_out} if name.startswith(only)}
    findings = [f"{name} is missing" for name in sorted(expected.keys() - found)]
    findings += [f"{name} was not there when it was saved" for name in sorted(found - expected.keys())]
    both = sorted(expected.keys() & found)
    for name, actual in zip(both, _hash_files(folder / name for name in both), strict=True):
        if isinstance(actual, OSError):
            findings.append(f"{name} cannot be read ({actual.strerror})")
        elif actual != expected[name]:
            findings.append(f"{name} has the sha256 {actual[:12]}, and {expected[name][:12]} was saved")
    return findings


def hash_file(path: Path) -> str:
    """sha256 of a file, as hex.

    Raises:
      OSError: it cannot be read, or is no regular file.
    """
    if not path.is_file():  # a pipe would be waited for
        raise OSError(0, "no regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_files(paths: Iterable[Path]) -> list[str | OSError]:
    """`hash_file` of each, or its error; several at a time, as hashing lets other threads run."""

    def look(path: Path) -> str | OSError:
        try:
            return hash_file(path)
        except OSError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(look, paths))


def _files(folder: Path) -> set[str]:
    """Names, relative to the folder, of all that is in it but folders."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def _read(path: Path) -> dict[str, str] | str:
    """Name -> sum; or in words why it cannot be had."""
    try:
        if path.stat().st_size > _LARGEST:
            return f"{SUMS} has {path.stat().st_size:,} bytes, more than such a list can have"
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return f"{SUMS} cannot be read ({error})"
    listed, _, end = text.rpartition(_END)
    if end != f"{_hash(listed)}\n":
        return f"{SUMS}, the list of its sums, is not as it was saved"
    pairs = [line.split("  ", 1) for line in listed.splitlines()]
    if any(len(pair) != 2 for pair in pairs):
        return f"{SUMS} is no list of sums"
    return {name: digest for digest, name in pairs}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
