"""What the layouts share: list files, and what to say where a data set is absent."""

from pathlib import Path, PurePosixPath

from icre_jax.errors import InputError, UnreadableError
from icre_jax.files.names import is_file
from icre_jax.files.texts import LARGEST_NUMBER, read_text, whole_number

LONGEST_LIST = 2**24  # characters of a list in one line


def require_folder(title: str, data_dir: Path, how_to_get: str) -> None:
    """Raise `InputError`, which says what belongs there, if there is no folder `data_dir`."""
    if not data_dir.is_dir():
        raise InputError(
            f"No {title} at {data_dir}: the folder does not exist. Put the data set there, or name its place with the "
            f"flag that the command has for it: --config.data.data_dir, --data_dir or --images.\n{how_to_get}"
        )


def read_ids(root: Path, name: str, findings: list[str]) -> list[int]:
    """Ascending identities of a list of one line of comma-separated integers; what is wrong goes into `findings`.

    Args:
      root: of the data set.
      name: of the list below it, e.g. "exp/train_id.txt".
      findings: to add to.
    """
    text = read_list(root / name, name, findings)
    if text is None:
        return []
    try:
        fields = [field.strip() for field in text.replace("\n", ",").split(",") if field.strip()]
        ids = [_parse(field) for field in fields]
    except ValueError as error:
        findings.append(f"{name} is not one line of comma-separated integers ({error})")
        return []
    if not ids:
        findings.append(f"{name} names no identity")
    doubles = sorted({pid for pid in ids if ids.count(pid) > 1})
    if doubles:
        findings.append(f"{name} names identities twice: {doubles}")
    return sorted(set(ids))


def read_labelled_paths(root: Path, name: str, findings: list[str]) -> list[tuple[PurePosixPath, int]]:
    """The images of a list of lines "relative/path label", in its order; what is wrong goes into `findings`.

    Arguments as of `read_ids`. A line that cannot be used is left out of the answer.
    """
    text = read_list(root / name, name, findings)
    if text is None:
        return []
    images: dict[PurePosixPath, int] = {}
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    for number, line in lines:
        if not line:
            continue
        words, _, label = line.rpartition(" ")
        path = PurePosixPath(words.strip())
        if not words.strip() or whole_number(label) is None:
            findings.append(f"{name} line {number} is not 'relative/path label': {_short(line)!r}")
        elif path.is_absolute() or ".." in path.parts:
            findings.append(f"{name} line {number} leads out of the data set: {path}")
        elif path in images:
            findings.append(f"{name} line {number} names {path} again")
        elif not is_file(root / path):
            findings.append(f"{path} is missing ({name} line {number})")
        else:
            images[path] = _parse(label)
    if not any(line for _, line in lines):
        findings.append(f"{name} names no image")
    return list(images.items())


def read_list(path: Path, name: str, findings: list[str]) -> str | None:
    """The content of a list; None if it is not there or is no text, which goes into `findings`."""
    if not path.is_file():
        findings.append(f"list {name} is missing")
        return None
    try:
        return read_text(path, longest_line=LONGEST_LIST)
    except UnreadableError as error:
        findings.append(f"{name} cannot be read ({error.reason})")
        return None


def _parse(text: str) -> int:
    number = whole_number(text)
    if number is None:
        raise ValueError(f"{_short(text)!r} is no whole number from 0 to {LARGEST_NUMBER}")
    return number


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
