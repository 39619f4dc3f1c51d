"""A user's own images, named by one list.

    manifest.csv    header "path,pid,camid,modality,split", in any order; one image a line

path is relative to the folder of the list, with forward slashes; pid and camid are whole numbers from 0; modality is
visible or infrared; split is train, query or gallery. A path counts in its normal form ("x/a.png" for "./x//a.png"),
so that an image has one. Queries of one modality are compared with the gallery of the other; each of the two splits may
hold both modalities. `icre_jax.data.folders` writes such a list from folders.
"""

from pathlib import Path, PurePosixPath

from icre_jax.data.layouts.lists import require_folder
from icre_jax.data.records import Record
from icre_jax.datasets import INFRARED, MANIFEST, MODALITIES, VISIBLE
from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files.names import find_name_defect, is_file
from icre_jax.files.texts import LARGEST_NUMBER, read_rows, whole_number

NAME = "manifest.csv"
COLUMNS = ("path", "pid", "camid", "modality", "split")
SPLITS = ("train", "query", "gallery")
HOW_TO_GET = (
    f"The folder holds {NAME}, with the header {','.join(COLUMNS)} and one image a line. "
    "`python -m icre_jax.prepare --make_manifest FOLDER` writes it from FOLDER/{train,query,gallery}/"
    "{visible,infrared}/<person>/ (docs/own_pictures.md)."
)
TEST_SPLITS = ("query", "gallery")
_NO_IMAGE = "no image at all for the split {!r}"
# The one finding that does not keep a list from being used: it is for testing only.
NO_TRAINING = _NO_IMAGE.format("train")


def scan(data_dir: Path) -> dict[str, list[Record]]:
    """List the images of every split.

    Args:
      data_dir: the folder that holds manifest.csv.

    Returns:
      "train", "query" and "gallery", each in the order of the list; no "train" where a list is for testing only.

    Raises:
      InputError: naming every line that cannot be used, every missing image, and what makes the whole unfit: an
        identity in train and test, or no query that could find anybody.
    """
    splits, findings = survey(data_dir)
    if findings == [NO_TRAINING]:
        return {name: splits[name] for name in TEST_SPLITS}
    if findings:
        raise InputError(f"{data_dir / NAME} cannot be used:\n{join_findings(findings)}\n{HOW_TO_GET}")
    return splits


def survey(data_dir: Path) -> tuple[dict[str, list[Record]], list[str]]:
    """What `scan` gives, of what is there, and everything that is wrong with the list.

    Raises:
      InputError: there is no folder `data_dir`.
    """
    require_folder(MANIFEST.title, data_dir, HOW_TO_GET)
    splits, findings = survey_lines(data_dir / NAME)
    return splits, findings or _wrong_together(splits)


def survey_lines(file: Path) -> tuple[dict[str, list[Record]], list[str]]:
    """As `survey`, of a list of any name and line by line alone: whether the whole is fit to train and test is not
    asked."""
    findings: list[str] = []
    splits: dict[str, list[Record]] = {name: [] for name in SPLITS}
    lines_of: dict[str, int] = {}
    for number, row in _read(file, findings):
        wrong = _wrong_with(row, file)
        path = PurePosixPath(row["path"]).as_posix()
        if not wrong and path in lines_of:
            wrong = [f"{path} is named in line {lines_of[path]} already"]
        if wrong:
            findings += [f"{file.name} line {number}: {words}" for words in wrong]
        else:
            lines_of[path] = number
            splits[row["split"]].append(Record(path, int(row["pid"]), int(row["camid"]), row["modality"]))
    return splits, findings


def _read(path: Path, findings: list[str]) -> list[tuple[int, dict[str, str]]]:
    """(line number, fields) of every line that is not empty; none if the header is not right."""
    if not path.is_file():
        findings.append(f"list {path.name} is missing")
        return []
    try:
        lines = read_rows(path)
        header = [name.strip() for name in next(lines, (1, []))[1]]
        if sorted(header) != sorted(COLUMNS):
            found = ",".join(header)[:200]
            findings.append(f"{path.name} line 1 is {found!r}; its columns must be {','.join(COLUMNS)}")
            return []
        rows = []
        for number, fields in lines:
            if not any(field.strip() for field in fields):
                continue
            if len(fields) == len(header):
                words = (field.strip() for field in fields)
                rows.append((number, dict(zip(header, words, strict=True))))
            else:
                findings.append(f"{path.name} line {number} has {len(fields)} fields, not {len(header)}")
    except UnreadableError as error:
        findings.append(f"{path.name} cannot be read ({error.reason})")
        return []
    if not rows and not findings:
        findings.append(f"{path.name} names no image")
    return rows


def _wrong_with(row: dict[str, str], file: Path) -> list[str]:
    wrong = []
    path = PurePosixPath(row["path"])
    if not row["path"] or path.is_absolute() or ".." in path.parts:
        wrong.append(f"path is {row['path']!r}; it must be relative to the folder of {file.name} and stay in it")
    elif defect := find_name_defect(row["path"]):
        wrong.append(f"path is {row['path']!r}; it cannot be used, as {defect}")
    elif not is_file(file.parent / path):
        wrong.append(f"{path} is missing")
    for name in ("pid", "camid"):
        text = row[name]
        if whole_number(text) is None:
            wrong.append(f"{name} is {text[:200]!r}; it must be a whole number from 0 to {LARGEST_NUMBER}")
    for name, allowed in (("modality", MODALITIES), ("split", SPLITS)):
        if row[name] not in allowed:
            wrong.append(f"{name} is {row[name][:200]!r}; allowed are {', '.join(allowed)}")
    return wrong


def _wrong_together(splits: dict[str, list[Record]]) -> list[str]:
    wrong = [_NO_IMAGE.format(name) for name in SPLITS if not splits[name]]
    pids = {
        (split, modality): {record.pid for record in records if record.modality == modality}
        for split, records in splits.items()
        for modality in MODALITIES
    }
    for name in ("query", "gallery"):
        both = sorted((pids["train", VISIBLE] | pids["train", INFRARED]) & (pids[name, VISIBLE] | pids[name, INFRARED]))
        if both:
            wrong.append(f"identities in both train and {name}: {both}; a network must be tested on others")
    for modality, other in ((VISIBLE, INFRARED), (INFRARED, VISIBLE)):
        alone = sorted(pids["train", modality] - pids["train", other])
        if alone:
            wrong.append(f"training identities without {other} images: {alone}; training needs both of everybody")
    directions = [
        (modality, other)
        for modality, other in ((INFRARED, VISIBLE), (VISIBLE, INFRARED))
        if pids["query", modality] and pids["gallery", other]
    ]
    if not directions and splits["query"] and splits["gallery"]:
        wrong.append("query and gallery hold one modality only; queries of one are compared with the other's gallery")
    wrong += [
        f"no identity of the {modality} queries is in the {other} gallery"
        for modality, other in directions
        if not pids["query", modality] & pids["gallery", other]
    ]
    return wrong
