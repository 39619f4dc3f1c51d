"""Verification: whole trees pass, every damage is named, and all of them at once."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from icre_jax import verify as command
from icre_jax.data.folders import write_manifest
from icre_jax.data.layouts import manifest
from icre_jax.data.verification import verify
from icre_jax.errors import InputError
from tests.conftest import run_command
from tests.full_trees import write_hitsz_vcm, write_image, write_llcm, write_regdb, write_sysu_mm01
from tests.test_own_pictures import make_folders

DATASETS = ("sysu_mm01", "llcm", "regdb", "hitsz_vcm")


@pytest.fixture
def copies(tree, llcm_tree, regdb_tree, hitsz_vcm_tree, tmp_path):
    """Copies of the rendered trees, below a folder whose name holds what a careless parser would split on."""
    trees = dict(zip(DATASETS, (tree, llcm_tree, regdb_tree, hitsz_vcm_tree), strict=True))
    return lambda dataset: Path(shutil.copytree(trees[dataset], tmp_path / "my_cam3_data ünï_c05_" / dataset))


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_rendered_tree_is_sound_and_called_rendered(copies, dataset):
    calls = []
    report = verify(dataset, copies(dataset), num_workers=2, progress=lambda *step: calls.append(step))
    assert report.errors == []
    assert any("not the published data set" in note for note in report.notes)
    assert calls[-1] == (len(calls), len(calls))


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def sysu_list(root: Path) -> str:
    (root / "exp" / "val_id.txt").unlink()
    return "list exp/val_id.txt is missing"


def sysu_extra_id(root: Path) -> str:
    path = root / "exp" / "test_id.txt"
    path.write_text(path.read_text().strip() + ",777\n")
    return "exp/test_id.txt names identity 777, of which no camera has an image"


def sysu_leak(root: Path) -> str:
    leaked = (root / "exp" / "train_id.txt").read_text().split(",")[0]
    path = root / "exp" / "test_id.txt"
    path.write_text(f"{path.read_text().strip()},{leaked}\n")
    return f"identities in both train_id.txt and test_id.txt: [{leaked}]"


def sysu_swap(root: Path) -> str:
    (root / "cam1").rename(root / "x")
    (root / "cam3").rename(root / "cam1")
    (root / "x").rename(root / "cam3")
    return "visible, camera 1: 36 of 36 images have no colour; are they infrared ones?"


def sysu_count(root: Path) -> str:
    folder = sorted((root / "cam6").iterdir())[0]
    (folder / "0003.jpg").unlink()
    return "cam6 (rendered): 35 images, 36 expected"


def sysu_number(root: Path) -> str:
    folder = sorted((root / "cam6").iterdir())[0]
    shutil.copy(folder / "0001.jpg", folder / "0001.jpeg")
    return f"cam6/{folder.name}/0001.jpg has the number of cam6/{folder.name}/0001.jpeg"


def sysu_draws(root: Path) -> str:
    scipy.io.savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": np.zeros((3, 2))})
    return "exp/rand_perm_cam.mat must be a 6 x 1 cell, not 3 x 2 float64"


def sysu_draws_of_fewer(root: Path) -> str:
    """Whole, but made for a tree whose last identity has one image fewer at camera 6."""
    draws = np.empty((6, 1), object)
    for camera in range(1, 7):
        draws[camera - 1, 0] = np.empty((100, 1), object)
        for pid in range(1, 101):
            n = len(list((root / f"cam{camera}" / f"{pid:04d}").glob("*.jpg")))
            last = int(sorted((root / "cam6").iterdir())[-1].name)
            n -= camera == 6 and pid == last
            draws[camera - 1, 0][pid - 1, 0] = np.tile(np.arange(1, n + 1), (10, 1))
    scipy.io.savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": draws})
    return f"exp/rand_perm_cam.mat draws among 2 images of identity {last} at camera 6, of which there are 3"


def sysu_torn_draws(root: Path) -> str:
    (root / "exp" / "rand_perm_cam.mat").write_bytes(b"MATLAB 5.0 torn")
    return "exp/rand_perm_cam.mat cannot be read"


def sysu_link(root: Path) -> str:
    file = sorted(root.glob("cam2/*/0001.jpg"))[0]
    file.unlink()
    file.symlink_to(root / "gone.jpg")
    return f"{file.relative_to(root).as_posix()} is a link to a file that is not there"


def sysu_truncated(root: Path) -> str:
    file = sorted(root.glob("cam2/*/0001.jpg"))[0]
    file.write_bytes(file.read_bytes()[:300])
    return f"{file.relative_to(root).as_posix()}: not readable"


def sysu_rotated(root: Path) -> str:
    file = sorted(root.glob("cam2/*/0001.jpg"))[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(file).save(file, exif=exif)
    return f"{file.relative_to(root).as_posix()}: an EXIF rotation tag"


def llcm_twice(root: Path) -> str:
    path = root / "idx" / "train_vis.txt"
    path.write_text("".join([*lines_of(path), lines_of(path)[0]]))
    return f"names {lines_of(path)[0].split()[0]} again"


def llcm_modality(root: Path) -> str:
    visible, infrared = root / "idx" / "train_vis.txt", root / "idx" / "train_nir.txt"
    first = lines_of(infrared)[0]
    visible.write_text("".join([*lines_of(visible), first]))
    return f"idx/train_vis.txt names {first.split()[0]}, which is not in vis/"


def llcm_camera(root: Path) -> str:
    path = root / "idx" / "test_nir.txt"
    pid = lines_of(path)[0].split("/")[2]
    write_image(root / "test_nir" / "cam3" / pid / "a.jpg", "infrared")
    path.write_text("".join([*lines_of(path), f"test_nir/cam3/{pid}/a.jpg {int(pid)}\n"]))
    return "test, infrared, camera 3: 1 images, 0 expected"


def llcm_person(root: Path) -> str:
    pid = (root / "idx" / "test_id.txt").read_text().split(",")[0].strip()
    label = lines_of(root / "idx" / "train_vis.txt")[0].split()[1]
    for kind, modality in (("vis", "visible"), ("nir", "infrared")):
        name = f"{kind}/{int(pid):04d}/x_c01_x.jpg"
        write_image(root / name, modality)
        path = root / "idx" / f"train_{kind}.txt"
        path.write_text("".join([*lines_of(path), f"{name} {label}\n"]))
    return f"identities with a folder in training and in the test: [{pid}]"


def regdb_other_trial(root: Path) -> str:
    shutil.copy(root / "idx" / "train_visible_3.txt", root / "idx" / "train_visible_2.txt")
    return "identities in both a train and a test list of trial 2"


def regdb_same_trials(root: Path) -> str:
    for name in ("train_visible", "train_thermal", "test_visible", "test_thermal"):
        shutil.copy(root / "idx" / f"{name}_3.txt", root / "idx" / f"{name}_2.txt")
    return "trials 2, 3 train on the same identities"


def regdb_label(root: Path) -> str:
    path = root / "idx" / "test_thermal_2.txt"
    name, label = lines_of(path)[0].split()
    path.write_text("".join([f"{name} 99\n", *lines_of(path)[1:]]))
    return f"idx/test_thermal_2.txt gives the folder {name.split('/')[1]} several labels: [{label}, 99]"


def vcm_modality(root: Path) -> str:
    """All visible and infrared frames of a camera change places."""
    name = next(root.glob("Test/*/rgb/*")).name
    for folder in root.glob(f"T*/*/rgb/{name}"):
        other = folder.parent.parent / "ir" / name
        folder.rename(root / "x")
        other.rename(folder)
        (root / "x").rename(other)
    return f"visible, camera {name[1:]}: "


def vcm_frame(root: Path) -> str:
    path = next(root.glob("Train/*/ir/*/6.jpg"))
    path.unlink()
    return f"{path.relative_to(root).as_posix()} is missing (info/train_name.txt line "


def vcm_list(root: Path) -> str:
    path = root / "info" / "track_test_info.txt"
    path.write_text("".join(lines_of(path)[:-1]))
    return "info/track_test_info.txt is not the list that the settings of the rendered people make"


SYSU_LISTS = (sysu_list, sysu_extra_id, sysu_leak, sysu_draws, sysu_draws_of_fewer, sysu_torn_draws)
SYSU_PICTURES = (sysu_swap, sysu_count, sysu_number, sysu_link, sysu_truncated, sysu_rotated)
DAMAGES = {
    "sysu_mm01": (*SYSU_LISTS, *SYSU_PICTURES),
    "llcm": (llcm_twice, llcm_modality, llcm_camera, llcm_person),
    "regdb": (regdb_other_trial, regdb_same_trials, regdb_label),
    "hitsz_vcm": (vcm_modality, vcm_frame, vcm_list),
}


@pytest.mark.parametrize(
    ("dataset", "damage"),
    [(dataset, damage) for dataset, damages in DAMAGES.items() for damage in damages],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_damage_is_named(copies, dataset, damage):
    root = copies(dataset)
    words = damage(root)
    report = verify(dataset, root, num_workers=2)
    # What may be two people of one number is odd, not wrong.
    findings = report.warnings if damage is llcm_person else report.errors
    assert any(words in finding for finding in findings), findings
    assert not report.sound


def test_all_damages_are_named_at_once(copies):
    root = copies("sysu_mm01")
    words = [damage(root) for damage in (sysu_truncated, sysu_count, sysu_torn_draws, sysu_extra_id)]
    report = verify("sysu_mm01", root, num_workers=2)
    for word in words:
        assert any(word in error for error in report.errors), report.errors


def test_links_are_followed_and_said(copies, tmp_path):
    root = copies("sysu_mm01")
    (root / "cam6").rename(tmp_path / "elsewhere")
    (root / "cam6").symlink_to(tmp_path / "elsewhere")
    file = sorted(root.glob("cam2/*/0001.jpg"))[0]
    file.rename(tmp_path / "one.jpg")
    file.symlink_to(tmp_path / "one.jpg")
    report = verify("sysu_mm01", root, num_workers=1)
    assert report.errors == []
    assert any("symbolic links, which are followed: 1: " in note for note in report.notes)


def test_a_tree_without_the_record_must_have_the_published_counts(copies):
    root = copies("regdb")
    (root / "synthetic.json").unlink()
    report = verify("regdb", root, trial=2, num_workers=2)
    assert "idx/train_visible_2.txt: 10 lines, 2,060 expected" in report.errors
    assert "all: 10 identities, 412 expected" in report.errors
    assert not [error for error in report.errors if "expected" not in error]


def test_what_cannot_be_asked(tmp_path):
    with pytest.raises(InputError, match="No SYSU-MM01 at"):
        verify("sysu_mm01", tmp_path / "absent", num_workers=1)
    with pytest.raises(InputError, match="trial is 1; allowed for llcm: None, as it has no trials"):
        verify("llcm", tmp_path, trial=1, num_workers=1)
    with pytest.raises(InputError, match="num_workers is 0; allowed: 1 or more"):
        verify("llcm", tmp_path, num_workers=0)


def test_the_command_and_its_exit_codes(copies, tmp_path):
    root = copies("sysu_mm01")
    flags = ("--dataset", "sysu_mm01", "--data_dir", str(root), "--json", str(tmp_path / "found.json"))
    process = run_command("icre_jax.verify", *flags)
    assert process.returncode == 0, process.stdout + process.stderr
    for words in ("test, camera 6", "decoding images: ", "Sound: 0 errors", "not the published data set"):
        assert words in process.stdout
    words = sysu_truncated(root)
    process = run_command("icre_jax.verify", *flags)
    assert process.returncode == 2
    assert f"error: {words}" in process.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["sound"] is False
    assert [words in error for error in found["errors"]] == [True]
    assert {"part": "val", "what": "identities", "expected": None, "found": 2} in found["counts"]
    process = run_command("icre_jax.verify", "--dataset", "llcm", "--data_dir", str(tmp_path / "absent"))
    assert (process.returncode, "Traceback" in process.stderr) == (2, False)
    assert "No LLCM at" in process.stderr
    # Before anything is looked at.
    with pytest.raises(InputError, match="Cannot write --json"):
        command.main(["--dataset", "llcm", "--data_dir", str(tmp_path / "absent"), "--json", str(tmp_path)])


def test_a_list_for_testing_only_is_sound(tmp_path, capsys):
    folder = make_folders(tmp_path / "own")
    shutil.rmtree(folder / "train")
    write_manifest(folder)
    assert [*manifest.scan(folder)] == ["query", "gallery"]
    assert command.main(["--dataset", "manifest", "--data_dir", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "note: no image at all for the split 'train': the list is for testing only." in said
    assert "Sound: 0 errors" in said
    # Beside anything else it is one error among others, as it is for training.
    path = folder / "manifest.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",query", ",gallery"), encoding="utf-8")
    report = verify("manifest", folder, num_workers=1)
    assert report.errors == ["no image at all for the split 'train'", "no image at all for the split 'query'"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "write", "num_images", "damaged"),
    [
        ("sysu_mm01", write_sysu_mm01, 44_745, "cam3/0491/0001.jpg"),
        ("llcm", write_llcm, 46_767, "vis/0001/0001_c01_f00000_vis.jpg"),
        ("regdb", write_regdb, 8_240, "Thermal/1/0.bmp"),
        ("hitsz_vcm", write_hitsz_vcm, 448_873, "Train/0001/rgb/D1/1.jpg"),
    ],
)
def test_a_tree_of_full_size_is_sound(tmp_path, dataset, write, num_images, damaged):
    root = write(tmp_path / "my_cam3_data")
    calls = []
    began = time.perf_counter()
    report = verify(dataset, root, num_workers=2, progress=lambda *step: calls.append(step))
    print(f"{dataset}: {time.perf_counter() - began:.1f} s")
    assert report.errors == []
    assert calls[-1] == (num_images, num_images)
    assert [count for count in report.counts if count.expected is not None]
    (root / damaged).unlink()
    assert not verify(dataset, root, num_workers=2).sound
