"""RegDB as it is delivered.

    Visible/<id>/*.bmp, Thermal/<id>/*.bmp
    idx/{train,test}_{visible,thermal}_{1..10}.txt   lines "relative/path label"

Ten trials, each half of the identities for training and half for the test. A network trained on one trial has seen
test identities of every other. Labels are those of the lists, which count both halves from 0. There are no cameras: as
the field does, camera 1 stands for visible and 2 for thermal, which is this project's "infrared".
"""

from pathlib import Path

from icre_jax.data.layouts.lists import read_labelled_paths, require_folder
from icre_jax.data.records import Record
from icre_jax.datasets import INFRARED, REGDB, VISIBLE
from icre_jax.errors import InputError, join_findings

CAMERAS = {VISIBLE: 1, INFRARED: 2}
SPLITS = ("train", "query", "gallery")
# List (without the trial) -> its split and modality.
LISTS = {
    "train_visible": ("train", VISIBLE),
    "train_thermal": ("train", INFRARED),
    "test_visible": ("query", VISIBLE),
    "test_thermal": ("gallery", INFRARED),
}
HOW_TO_GET = """\
RegDB is given out by its authors on request. The folder holds, as in the archive:
  Visible/<id>/*.bmp, Thermal/<id>/*.bmp
  idx/train_visible_K.txt, idx/train_thermal_K.txt, idx/test_visible_K.txt, idx/test_thermal_K.txt
                             K = 1 .. 10 (the trial), lines "relative/path label\""""


def scan(data_dir: Path, trial: int) -> dict[str, list[Record]]:
    """List the images of every split of one trial.

    Args:
      data_dir: the folder that holds Visible, Thermal and idx.
      trial: 1 .. 10.

    Returns:
      "train" (both modalities), "query" (test, visible), "gallery" (test, thermal), in the order of the lists.

    Raises:
      InputError: another trial; or naming every missing folder, list or image, every line that cannot be read, and
        every identity in both halves.
    """
    splits, findings = survey(data_dir, trial)
    if findings:
        raise InputError(
            f"{data_dir} is not a whole RegDB tree (trial {trial}):\n{join_findings(findings)}\n{HOW_TO_GET}"
        )
    return splits


def survey(data_dir: Path, trial: int) -> tuple[dict[str, list[Record]], list[str]]:
    """What `scan` gives, of what is there, and everything that is wrong with the tree.

    Raises:
      InputError: another trial, or there is no folder `data_dir`.
    """
    if trial not in REGDB.trials:
        raise InputError(f"trial is {trial!r}; {REGDB.title} has the trials {REGDB.describe_trials()}.")
    require_folder(REGDB.title, data_dir, HOW_TO_GET)
    findings = [f"folder {name} is missing" for name in ("Visible", "Thermal") if not (data_dir / name).is_dir()]
    splits: dict[str, list[Record]] = {name: [] for name in SPLITS}
    folders: dict[str, set[str]] = {"train": set(), "test": set()}
    for name, (split, modality) in LISTS.items():
        for path, label in read_labelled_paths(data_dir, f"idx/{name}_{trial}.txt", findings):
            splits[split].append(Record(str(path), label, CAMERAS[modality], modality))
            # Labels are counted anew in each half; the folder is the person.
            folders["train" if split == "train" else "test"].add(path.parent.name)
    both = sorted(folders["train"] & folders["test"])
    if both:
        findings.append(f"identities in both a train and a test list of trial {trial}: {', '.join(both)}")
    return splits, findings
