"""LLCM and RegDB from a delivered tree to prepared records: what is listed, what is refused, which trial it is."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from icre_jax.data.layouts import llcm, regdb
from icre_jax.data.prepared import open_or_prepare
from icre_jax.engine.provenance import dataset_label
from icre_jax.errors import InputError
from tests.conftest import OTHER_PEOPLE


def lines_of(path: Path) -> list[tuple[str, int]]:
    return [(line.split(" ")[0], int(line.split(" ")[1])) for line in path.read_text().splitlines()]


# --- LLCM ---------------------------------------------------------------------------------------------------------


def test_llcm_lists_exactly_what_the_lists_name(llcm_tree):
    splits = llcm.scan(llcm_tree)
    assert list(splits) == ["train", "query", "gallery"]
    train = {
        (path, label, int(path.rsplit("_c", 1)[1][:2]), "visible" if name == "vis" else "infrared")
        for name in ("vis", "nir")
        for path, label in lines_of(llcm_tree / "idx" / f"train_{name}.txt")
    }
    assert {(r.path, r.pid, r.camid, r.modality) for r in splits["train"]} == train
    for split, folder, modality in (("query", "test_nir", "infrared"), ("gallery", "test_vis", "visible")):
        expected = {
            (file.relative_to(llcm_tree).as_posix(), int(file.parts[-2]), int(file.parts[-3][3:]), modality)
            for file in (llcm_tree / folder).rglob("*.jpg")
        }
        assert {(r.path, r.pid, r.camid, r.modality) for r in splits[split]} == expected
        assert len(splits[split]) == len(expected) > 0
    assert {r.pid for r in splits["train"]} == set(range(OTHER_PEOPLE.num_train_ids))
    test_ids = {int(word) for word in (llcm_tree / "idx" / "test_id.txt").read_text().split(",")}
    assert {r.pid for r in splits["query"]} == {r.pid for r in splits["gallery"]} == test_ids


def test_llcm_lists_decide_and_not_the_folders(llcm_tree, tmp_path):
    copy = Path(shutil.copytree(llcm_tree, tmp_path / "copy"))
    shutil.copytree(next(copy.glob("test_vis/cam*/*")), copy / "test_vis" / "cam1" / "0999")
    assert llcm.scan(copy) == llcm.scan(llcm_tree)


def edit(path: Path, change) -> None:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def remove_a_list(copy: Path) -> str:
    (copy / "idx" / "test_nir.txt").unlink()
    return r"list idx/test_nir\.txt is missing"


def remove_the_ids(copy: Path) -> str:
    (copy / "idx" / "test_id.txt").unlink()
    return r"list idx/test_id\.txt is missing"


def remove_a_folder(copy: Path) -> str:
    shutil.rmtree(copy / "nir")
    return r"folder nir is missing\n(.|\n)*nir/\S+ is missing \(idx/train_nir\.txt line 1\)"


def remove_an_image(copy: Path) -> str:
    path = lines_of(copy / "idx" / "train_vis.txt")[2][0]
    (copy / path).unlink()
    return rf"{path} is missing \(idx/train_vis\.txt line 3\)"


def forget_a_label(copy: Path) -> str:
    edit(copy / "idx" / "train_vis.txt", lambda lines: [lines[0], lines[1].split(" ")[0] + "\n", *lines[2:]])
    return r"idx/train_vis\.txt line 2 is not 'relative/path label'"


def name_an_image_twice(copy: Path) -> str:
    edit(copy / "idx" / "test_vis.txt", lambda lines: [*lines, lines[0]])
    return r"idx/test_vis\.txt line \d+ names test_vis/\S+ again"


def lead_out_of_the_tree(copy: Path) -> str:
    edit(copy / "idx" / "test_vis.txt", lambda lines: ["../elsewhere.jpg 3\n", *lines])
    return r"idx/test_vis\.txt line 1 leads out of the data set: \.\./elsewhere\.jpg"


def hide_the_camera(copy: Path) -> str:
    path = lines_of(copy / "idx" / "train_nir.txt")[0][0]
    bare = path.replace("_c", "_x")
    (copy / path).rename(copy / bare)
    edit(copy / "idx" / "train_nir.txt", lambda lines: [line.replace(path, bare) for line in lines])
    return rf"{bare}, which tells no camera 1 \.\. 9 \(it is _cNN_ in the file name\)"


def name_a_tenth_camera(copy: Path) -> str:
    (copy / "test_vis" / "cam10" / "0001").mkdir(parents=True)
    path = lines_of(copy / "idx" / "test_vis.txt")[0][0]
    shutil.copy(copy / path, copy / "test_vis" / "cam10" / "0001" / "a.jpg")
    edit(copy / "idx" / "test_vis.txt", lambda lines: [*lines, "test_vis/cam10/0001/a.jpg 1\n"])
    return r"test_vis/cam10/0001/a\.jpg, which tells no camera"


def name_an_absent_id(copy: Path) -> str:
    edit(copy / "idx" / "test_id.txt", lambda lines: [lines[0].strip() + ",777\n"])
    return r"idx/test_id\.txt names identity 777, of which no list names an image"


def leave_an_id_out(copy: Path) -> str:
    edit(copy / "idx" / "test_id.txt", lambda lines: [lines[0].split(",", 1)[1]])
    return r"whose identity \d+ is not in idx/test_id\.txt"


LLCM_DAMAGES = [
    remove_a_list, remove_the_ids, remove_a_folder, remove_an_image, forget_a_label, name_an_image_twice,
    lead_out_of_the_tree, hide_the_camera, name_a_tenth_camera, name_an_absent_id, leave_an_id_out,
]  # fmt: skip


@pytest.mark.parametrize("damage", LLCM_DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_llcm_tree_is_refused_by_name(llcm_tree, tmp_path, damage):
    copy = Path(shutil.copytree(llcm_tree, tmp_path / "copy"))
    message = damage(copy)
    with pytest.raises(InputError, match=message):
        llcm.scan(copy)


# --- RegDB --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trial", [1, 10])
def test_regdb_lists_exactly_what_the_lists_of_its_trial_name(regdb_tree, trial):
    splits = regdb.scan(regdb_tree, trial)
    assert list(splits) == ["train", "query", "gallery"]
    for split, names in (
        ("train", ("train_visible", "train_thermal")),
        ("query", ("test_visible",)),
        ("gallery", ("test_thermal",)),
    ):
        expected = [
            (path, label, *(("visible", 1) if "visible" in name else ("infrared", 2)))
            for name in names
            for path, label in lines_of(regdb_tree / "idx" / f"{name}_{trial}.txt")
        ]
        assert [(r.path, r.pid, r.modality, r.camid) for r in splits[split]] == expected
        assert all(
            Path(r.path).parts[0] == ("Visible" if r.modality == "visible" else "Thermal") for r in splits[split]
        )


def remove_the_lists_of_the_trial(copy: Path) -> str:
    (copy / "idx" / "train_thermal_2.txt").unlink()
    return r"RegDB tree \(trial 2\)(.|\n)*list idx/train_thermal_2\.txt is missing"


def remove_the_thermal_folder(copy: Path) -> str:
    shutil.rmtree(copy / "Thermal")
    return r"folder Thermal is missing"


def train_on_a_test_identity(copy: Path) -> str:
    path, _ = lines_of(copy / "idx" / "test_visible_2.txt")[0]
    edit(copy / "idx" / "train_visible_2.txt", lambda lines: [*lines, f"{path} 77\n"])
    return rf"identities in both a train and a test list of trial 2: {Path(path).parent.name}"


def empty_a_list(copy: Path) -> str:
    (copy / "idx" / "test_visible_2.txt").write_text("\n")
    return r"idx/test_visible_2\.txt names no image"


REGDB_DAMAGES = [remove_the_lists_of_the_trial, remove_the_thermal_folder, train_on_a_test_identity, empty_a_list]


@pytest.mark.parametrize("damage", REGDB_DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_regdb_tree_is_refused_by_name(regdb_tree, tmp_path, damage):
    copy = Path(shutil.copytree(regdb_tree, tmp_path / "copy"))
    message = damage(copy)
    with pytest.raises(InputError, match=message):
        regdb.scan(copy, 2)
    assert regdb.scan(regdb_tree, 3)


# --- both ---------------------------------------------------------------------------------------------------------


def test_records_hold_the_files_own_bytes(llcm_tree, regdb_tree, tmp_path):
    for dataset, tree, trial in (("llcm", llcm_tree, None), ("regdb", regdb_tree, 4)):
        prepared = open_or_prepare(dataset, tree, tmp_path, trial=trial)
        for split, index in prepared.index.items():
            source = prepared.source(split)
            assert len(source) == len(index)
            for row in random.Random(0).sample(range(len(index)), 3):
                assert source[row]["image"] == (tree / str(index.path[row])).read_bytes()
                assert source[row]["pid"] == index.pid[row]
                assert source[row]["camid"] == index.camid[row]
        assert dataset_label(prepared) == "synthetic people"


def test_every_trial_has_records_and_a_fingerprint_of_its_own(regdb_tree, tmp_path):
    first, second = (open_or_prepare("regdb", regdb_tree, tmp_path, trial=trial) for trial in (1, 2))
    assert (first.trial, second.trial) == (1, 2)
    assert first.folder != second.folder
    assert first.fingerprint != second.fingerprint
    again = open_or_prepare("regdb", tmp_path / "gone", tmp_path, trial=1)
    assert (again.trial, again.fingerprint) == (1, first.fingerprint)
    np.testing.assert_array_equal(again.index["train"].path, first.index["train"].path)


def test_trials_with_equal_lists_still_differ(regdb_tree, tmp_path):
    copy = Path(shutil.copytree(regdb_tree, tmp_path / "copy"))
    for name in regdb.LISTS:
        shutil.copy(copy / "idx" / f"{name}_1.txt", copy / "idx" / f"{name}_2.txt")
    first, second = (open_or_prepare("regdb", copy, tmp_path / "p", trial=trial) for trial in (1, 2))
    assert first.fingerprint != second.fingerprint


def test_a_trial_that_there_is_not(regdb_tree, llcm_tree, tmp_path):
    with pytest.raises(InputError, match="trial is None; allowed for RegDB: 1 to 10"):
        open_or_prepare("regdb", regdb_tree, tmp_path)
    with pytest.raises(InputError, match="trial is 11; allowed for RegDB: 1 to 10"):
        open_or_prepare("regdb", regdb_tree, tmp_path, trial=11)
    with pytest.raises(InputError, match="trial is 1; allowed for LLCM: None"):
        open_or_prepare("llcm", llcm_tree, tmp_path, trial=1)
    with pytest.raises(InputError, match="trial is 0; RegDB has the trials 1 to 10"):
        regdb.scan(regdb_tree, 0)


def test_only_a_real_tree_has_the_name_of_the_data_set(llcm_tree, regdb_tree, tmp_path):
    for dataset, tree, trial, name in (("llcm", llcm_tree, None, "LLCM"), ("regdb", regdb_tree, 1, "RegDB")):
        copy = Path(shutil.copytree(tree, tmp_path / dataset))
        (copy / "synthetic.json").unlink()
        assert dataset_label(open_or_prepare(dataset, copy, tmp_path / "p", trial=trial)) == name
