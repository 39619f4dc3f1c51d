"""LLCM as it is delivered.

    vis/, nir/                          training images; the camera is `_cNN_` in the file name
    test_vis/camN/IIII/, test_nir/...   test images; camera and identity are the folders
    idx/{train,test}_{vis,nir}.txt      lines "relative/path label"
    idx/test_id.txt                     one line of comma-separated integers

Nine cameras, each visible by day and near-infrared by night; no near-infrared test image is of camera 3. The lists
decide. A training identity has the label of its list, a test identity the number of its folder, as the galleries are
drawn in that order; the two are counted apart, so that a number may stand for one person here and another there.
"""

import re
from pathlib import Path, PurePosixPath

from icre_jax.data.layouts.lists import read_ids, read_labelled_paths, require_folder
from icre_jax.data.records import Record
from icre_jax.datasets import INFRARED, LLCM, VISIBLE
from icre_jax.errors import InputError, join_findings
from icre_jax.files.texts import whole_number

CAMERAS = tuple(range(1, 10))
SPLITS = ("train", "query", "gallery")
# List -> its split and modality.
LISTS = {
    "train_vis": ("train", VISIBLE),
    "train_nir": ("train", INFRARED),
    "test_nir": ("query", INFRARED),
    "test_vis": ("gallery", VISIBLE),
}
HOW_TO_GET = """\
LLCM is given out by its authors on request. The folder holds, as in the archive:
  vis/, nir/                         training images, with the camera as _cNN_ in the file name
  test_vis/camN/IIII/, test_nir/camN/IIII/   test images, N = 1 .. 9
  idx/train_vis.txt, idx/train_nir.txt, idx/test_vis.txt, idx/test_nir.txt   lines "relative/path label"
  idx/test_id.txt                    one line of comma-separated integers"""

_TRAIN_CAMERA = re.compile(r"_c(\d+)_")
_TEST_CAMERA = re.compile(r"cam(\d+)")


def scan(data_dir: Path) -> dict[str, list[Record]]:
    """List the images of every split.

    Args:
      data_dir: the folder that holds vis, nir, test_vis, test_nir and idx.

    Returns:
      "train" (both modalities), "query" (test, infrared), "gallery" (test, visible), in the order of the lists.

    Raises:
      InputError: naming every missing folder, list or image, and every line or file name that cannot be read.
    """
    splits, findings = survey(data_dir)
    if findings:
        raise InputError(f"{data_dir} is not a whole LLCM tree:\n{join_findings(findings)}\n{HOW_TO_GET}")
    return splits


def survey(data_dir: Path) -> tuple[dict[str, list[Record]], list[str]]:
    """What `scan` gives, of what is there, and everything that is wrong with the tree.

    Raises:
      InputError: there is no folder `data_dir`.
    """
    require_folder(LLCM.title, data_dir, HOW_TO_GET)
    findings = [
        f"folder {name} is missing" for name in ("vis", "nir", "test_vis", "test_nir") if not (data_dir / name).is_dir()
    ]
    test_ids = set(read_ids(data_dir, "idx/test_id.txt", findings))
    splits: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for name, (split, modality) in LISTS.items():
        for path, label in read_labelled_paths(data_dir, f"idx/{name}.txt", findings):
            pid, camid = (label, _train_camera(path)) if split == "train" else _test_labels(path)
            if camid not in CAMERAS:
                where = "_cNN_ in the file name" if split == "train" else "camN/IIII, the last two folders"
                findings.append(f"idx/{name}.txt names {path}, which tells no camera 1 .. 9 (it is {where})")
            elif split != "train" and test_ids and pid not in test_ids:
                findings.append(f"idx/{name}.txt names {path}, whose identity {pid} is not in idx/test_id.txt")
            else:
                splits[split].append(Record(str(path), pid, camid, modality))
    if not findings:
        seen = {record.pid for split in ("query", "gallery") for record in splits[split]}
        findings += [
            f"idx/test_id.txt names identity {pid}, of which no list names an image" for pid in sorted(test_ids - seen)
        ]
    return splits, findings


def _train_camera(path: PurePosixPath) -> int:
    """Camera of a training image; 0 if the file name does not tell."""
    found = _TRAIN_CAMERA.search(path.name)
    return (whole_number(found[1]) or 0) if found else 0


def _test_labels(path: PurePosixPath) -> tuple[int, int]:
    """Identity and camera of a test image; (0, 0) if the folders do not tell."""
    camera = _TEST_CAMERA.fullmatch(path.parts[-3]) if len(path.parts) > 2 else None
    pid = whole_number(path.parts[-2]) if camera else None
    if camera is None or pid is None:
        return 0, 0
    return pid, whole_number(camera[1]) or 0
