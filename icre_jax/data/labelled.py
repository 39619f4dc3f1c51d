"""Images of one modality with who is on them, as folders, lists and data sets say it.

    FOLDER                <person>/<file>, <person>/camN/<file>, or <file> of nobody known; below visible/ or infrared/
                          in it, where these are there
    manifest, list        as `icre_jax.data.collection` has them; only a manifest has labels
    FOLDER of a data set  its layout, e.g. SYSU-MM01's camN/IIII/

Training images of a manifest or data set are never taken: these are images to search, and to search for.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from icre_jax.data.collection import collect
from icre_jax.data.images import SUFFIXES
from icre_jax.data.layouts import hitsz_vcm, llcm, manifest, regdb, sysu_mm01
from icre_jax.data.records import Record
from icre_jax.data.walking import is_folder, list_folder
from icre_jax.datasets import CARDS, HITSZ_VCM, LLCM, MANIFEST, REGDB, RENDERED_MARK, SYSU_MM01, Modality
from icre_jax.errors import InputError, UnreadableError, join_findings
from icre_jax.files.json_files import read_json_object
from icre_jax.files.names import is_file
from icre_jax.files.texts import LARGEST_NUMBER, whole_number

TEST = ("query", "gallery")
# What --split may say; "test" is both of the others.
SPLITS = ("test", "query", "gallery", "val")
_LAYOUTS: Mapping[str, Callable[..., dict[str, list[Record]]]] = {
    SYSU_MM01.name: sysu_mm01.scan,
    LLCM.name: llcm.scan,
    REGDB.name: regdb.scan,
    HITSZ_VCM.name: hitsz_vcm.scan,
}
DATASETS = tuple(_LAYOUTS)
_CAMERA = re.compile(r"cam(\d+)")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where labelled images are.

    Attributes:
      path: a folder, a manifest or a list.
      dataset: whose layout the folder has, of `DATASETS`; None for own folders, manifests and lists.
      trial: of a data set that has trials.
      split: which images of a manifest or data set, of `SPLITS`.
    """

    path: Path
    dataset: str | None = None
    trial: int | None = None
    split: str = "test"


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An image.

    Attributes:
      path: relative to the folder it was found in, with forward slashes.
      person: as folders or lists call them; "" where nobody says.
      camid: the camera's number; None where it is not known.
    """

    path: str
    person: str
    camid: int | None


def list_labelled(source: Source, modality: Modality) -> tuple[Path, list[Labelled]]:
    """The folder that paths are relative to, and the images of one modality; none of them is opened.

    Raises:
      InputError: nothing is there, or no image; or naming every file, folder and line that has no place.
    """
    path = source.path
    if source.trial is not None and source.dataset is None:
        raise InputError(f"--trial {source.trial} needs a --dataset that has trials.")
    if source.dataset is not None:
        return path, _of_records(_scan(source), source, modality)
    file = path / manifest.NAME if is_file(path / manifest.NAME) else path
    if file.suffix.lower() == ".csv" and file.is_file():
        splits, findings = manifest.survey_lines(file)
        if findings:
            raise InputError(f"{file} cannot be used:\n{join_findings(findings)}\n{manifest.HOW_TO_GET}")
        return file.parent, _of_records(splits, source, modality)
    if source.split != "test":
        raise InputError(f"--split {source.split} needs a manifest or --dataset; {path} alone says nothing of splits.")
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return path.parent, [Labelled(path.name, "", None)]
    if path.is_dir():
        return _of_folder(path, modality)
    found = collect(path, modality)
    return found.root, [Labelled(name, "", None) for name in found.path.tolist()]


def read_rendered_seed(folder: Path) -> int | None:
    """The seed of the rendered people in `folder`, which with a number is a person; None if it is no rendered tree.

    Raises:
      InputError: what the tree says of itself is damaged.
    """
    mark = folder / RENDERED_MARK
    if not mark.is_file():
        return None
    try:
        seed = read_json_object(mark).get("seed")
    except UnreadableError as error:
        raise InputError(f"{mark} is damaged ({error.reason}). Render the tree again.") from error
    if type(seed) is not int:
        raise InputError(f"{mark} is damaged (its seed is {seed!r}, no whole number). Render the tree again.")
    return seed


def _scan(source: Source) -> dict[str, list[Record]]:
    assert source.dataset is not None
    card = CARDS[source.dataset]
    if source.trial not in (card.trials or (None,)):
        raise InputError(f"--trial is {source.trial}; allowed for {card.title}: {card.describe_trials()}.")
    scan = _LAYOUTS[source.dataset]
    return scan(source.path) if source.trial is None else scan(source.path, source.trial)


def _of_records(splits: Mapping[str, list[Record]], source: Source, modality: Modality) -> list[Labelled]:
    wanted = TEST if source.split == "test" else (source.split,)
    absent = [name for name in wanted if name not in splits]
    records = [record for name in wanted for record in splits.get(name, []) if record.modality == modality]
    if absent or not records:
        title = CARDS[source.dataset or MANIFEST.name].title
        allowed = ", ".join(name for name in splits if name != "train")
        raise InputError(
            f"{source.path} ({title}) has no {modality} image in the split {source.split}. Splits: test, {allowed}."
        )
    return [Labelled(record.path, str(record.pid), record.camid) for record in records]


def _of_folder(folder: Path, modality: Modality) -> tuple[Path, list[Labelled]]:
    found = collect(folder, modality)
    folder = found.root
    images, findings = [], []
    for path in found.path.tolist():
        *parents, _ = path.split("/")
        person = parents[0] if parents else ""
        cameras = [whole_number(camera[1]) for part in parents[1:] if (camera := _CAMERA.fullmatch(part))]
        if _CAMERA.fullmatch(person) or person in ("train", *TEST):
            findings.append(f"{person}/ stands where a person's folder should be")
        elif len(cameras) > 1:
            findings.append(f"{path} lies in several camN folders")
        elif None in cameras:
            findings.append(f"{path} lies in a folder of a camera above {LARGEST_NUMBER}")
        else:
            images.append(Labelled(path, person, cameras[0] if cameras else None))
    known = {image.path.split("/")[0] for image in images}
    if not findings:
        persons = [entry.name for entry in list_folder(folder, folder, findings) if is_folder(entry)]
        findings += [f"{name}/ holds no image" for name in persons if name not in known]
    if findings:
        raise InputError(
            f"{folder} cannot be used:\n{join_findings([*dict.fromkeys(findings)])}\nOwn images lie in <person>/, or "
            "in visible/<person>/ and infrared/<person>/; for a data set's tree say which with --dataset."
        )
    return folder, images
