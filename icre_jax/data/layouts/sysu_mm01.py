"""SYSU-MM01 as it is delivered.

    camN/IIII/KKKK.jpg          N = 1..6, four-digit identity and image number
    exp/{train,val,test}_id.txt one line of comma-separated integers each

Cameras 1, 2, 4, 5 are visible, 3 and 6 infrared. Folders hold identities that are in no list; the lists decide.
"""

from pathlib import Path

from icre_jax.data.layouts.lists import read_ids, require_folder
from icre_jax.data.records import Record
from icre_jax.datasets import INFRARED, SYSU_MM01, VISIBLE
from icre_jax.errors import InputError, join_findings

VISIBLE_CAMERAS = (1, 2, 4, 5)
INFRARED_CAMERAS = (3, 6)
ID_LISTS = ("train", "val", "test")
SPLITS = ("train", "val", "query", "gallery")
HOW_TO_GET = (
    "SYSU-MM01 is given out by its authors on request. The folder holds cam1 .. cam6 (camN/IIII/KKKK.jpg) and "
    "exp/train_id.txt, exp/val_id.txt, exp/test_id.txt, as in the archive."
)


def scan(data_dir: Path) -> dict[str, list[Record]]:
    """List the images of every split.

    Args:
      data_dir: the folder that holds cam1 .. cam6 and exp.

    Returns:
      "train" and "val" (both modalities), "query" (test identities, infrared), "gallery" (test identities, visible);
      each sorted by camera, identity and file name.

    Raises:
      InputError: naming every missing folder or list, identity without images, identity in two lists, foreign file.
    """
    splits, findings = survey(data_dir)
    if findings:
        raise InputError(f"{data_dir} is not a whole SYSU-MM01 tree:\n{join_findings(findings)}\n{HOW_TO_GET}")
    return splits


def survey(data_dir: Path) -> tuple[dict[str, list[Record]], list[str]]:
    """What `scan` gives, of what is there, and everything that is wrong with the tree.

    Raises:
      InputError: there is no folder `data_dir`.
    """
    require_folder(SYSU_MM01.title, data_dir, HOW_TO_GET)
    cameras = sorted(VISIBLE_CAMERAS + INFRARED_CAMERAS)
    findings = [f"folder cam{camera} is missing" for camera in cameras if not (data_dir / f"cam{camera}").is_dir()]
    lists = {name: read_ids(data_dir, f"exp/{name}_id.txt", findings) for name in ID_LISTS}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        both = sorted(set(lists[first]) & set(lists[second]))
        if both:
            findings.append(f"identities in both {first}_id.txt and {second}_id.txt: {both}")
    # Without its folders and lists the rest would only be said to be missing once more.
    complete = not any(finding.endswith("is missing") for finding in findings)

    splits: dict[str, list[Record]] = {name: [] for name in SPLITS}
    seen: set[int] = set()
    for camera in cameras:
        modality = VISIBLE if camera in VISIBLE_CAMERAS else INFRARED
        test_split = "gallery" if modality == VISIBLE else "query"
        for name, ids in lists.items():
            split = test_split if name == "test" else name
            for pid in ids:
                files = _list_images(data_dir / f"cam{camera}" / f"{pid:04d}", findings)
                if files:
                    seen.add(pid)
                paths = [file.relative_to(data_dir).as_posix() for file in files]
                splits[split] += [Record(path, pid, camera, modality) for path in paths]
    if complete:
        findings += [
            f"exp/{name}_id.txt names identity {pid}, of which no camera has an image"
            for name, ids in lists.items()
            for pid in ids
            if pid not in seen
        ]
        findings += [f"no image at all for the split {name!r}" for name in SPLITS if not splits[name]]
    return splits, list(dict.fromkeys(findings))


def _list_images(folder: Path, findings: list[str]) -> list[Path]:
    """Images of one identity at one camera, by name; what file managers leave (.*, Thumbs.db) is passed over."""
    if not folder.is_dir():
        return []
    images = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in (".jpg", ".jpeg") and file.is_file():
            images.append(file)
        elif file.is_symlink() and not file.exists():
            findings.append(f"{folder.parent.name}/{folder.name}/{file.name} is a link to a file that is not there")
        elif not file.name.startswith(".") and file.name != "Thumbs.db":
            findings.append(f"{folder.parent.name}/{folder.name}/{file.name} is not a .jpg file")
    return images
