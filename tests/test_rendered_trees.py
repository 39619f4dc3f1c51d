"""Trees of rendered people: as each data set lies on disk, whole or not there, the same for any number of processes."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icre_jax.errors import InputError
from icre_jax.rendering import (
    HITSZ_VCM_CAMERAS,
    REGDB_CAMERAS,
    sample_person,
    write_tree,
    writers,
)
from tests.conftest import VCM_PEOPLE
from tests.rendered_people import CAMERAS, SETTINGS, draw


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "data"
    write_tree("sysu_mm01", root, SETTINGS)
    return root


def test_two_writes_are_identical_for_any_number_of_workers(tree: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    write_tree("sysu_mm01", tmp_path / "again", SETTINGS, num_workers=2, progress=lambda *step: steps.append(step))
    assert files_of(tmp_path / "again") == files_of(tree)
    assert steps == [(i, 9) for i in range(1, 10)]


def test_layout_is_that_of_sysu_mm01(tree: Path) -> None:
    lists = {}
    for name in ("train", "val", "test"):
        (line,) = (tree / "exp" / f"{name}_id.txt").read_text().splitlines()
        lists[name] = [int(word) for word in line.split(",")]
    assert [len(lists[name]) for name in ("train", "val", "test")] == [4, 2, 3]
    assert sorted(lists["train"] + lists["val"] + lists["test"]) == list(range(1, 10))

    for pid in range(1, 10):
        cameras = {camid for camid in CAMERAS if (tree / f"cam{camid}" / f"{pid:04d}").is_dir()}
        assert {3, 6} <= cameras
        assert len(cameras & {1, 2, 4, 5}) in (3, 4)
        for camid in cameras:
            names = sorted(path.name for path in (tree / f"cam{camid}" / f"{pid:04d}").iterdir())
            assert names == ["0001.jpg", "0002.jpg"]
    assert len([path for path in files_of(tree) if path.endswith(".jpg")]) < 9 * 6 * 2, "nobody misses a camera"


def test_images_have_the_size_asked_for_and_infrared_is_grey(tree: Path) -> None:
    for path in sorted(tree.rglob("*.jpg")):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (48, 96))
            pixels = np.asarray(image).astype(int)
        camid = int(path.parent.parent.name.removeprefix("cam"))
        spread = np.ptp(pixels, axis=2).mean()
        if CAMERAS[camid].modality == "infrared":
            assert spread == 0
        else:
            assert spread > 3


def test_jpeg_files_are_the_rendered_images(tree: Path) -> None:
    pid = 1
    with Image.open(tree / "cam3" / "0001" / "0002.jpg") as image:
        written = np.asarray(image).astype(int)
    assert np.abs(written - draw(sample_person(7, pid), CAMERAS[3], 2)).mean() < 8


def test_writing_again_is_a_no_op_for_the_same_settings_only(tree: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    write_tree("sysu_mm01", tree, SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before
    with pytest.raises(InputError, match=r"seed is 7 there and 8 here[\s\S]*another data_dir, or delete"):
        write_tree("sysu_mm01", tree, dataclasses.replace(SETTINGS, seed=8))
    record = json.loads((tree / "synthetic.json").read_text())
    assert record["image_size"] == [96, 48]
    assert {field.name for field in dataclasses.fields(SETTINGS)} < set(record)


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tree("sysu_mm01", tmp_path / "data", SETTINGS, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"synthetic\.json"):
        write_tree("sysu_mm01", tmp_path, SETTINGS)
    assert files_of(tmp_path) == {"notes.txt": b"mine"}
    with pytest.raises(InputError, match="is a file"):
        write_tree("sysu_mm01", tmp_path / "notes.txt", SETTINGS)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("seed", -1, "from 0"),
        ("seed", 1.5, "integer"),
        ("difficulty", "brutal", "'easy', 'default', 'hard'"),
        ("num_train_ids", 0, "from 1"),
        ("num_test_ids", 9999, "at most 9999"),
        ("num_images_per_camera", 0, "from 1"),
        ("image_size", (48, 96), r"\(height, width\)"),
        ("image_size", 96, r"\(height, width\)"),
        ("image_size", (8, 8), "height is 8; allowed: an integer from 32"),
    ],
)
def test_bad_settings_say_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(InputError, match=allowed) as caught:
        dataclasses.replace(SETTINGS, **{name: value})
    assert name in str(caught.value)
    assert "Fix:" in str(caught.value)


def test_a_failing_process_is_an_error_and_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writers.sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="a rendering process failed"):
        write_tree("sysu_mm01", tmp_path / "data", SETTINGS, num_workers=2)
    assert list(tmp_path.iterdir()) == []


def test_processes_do_not_run_the_callers_script_again(tmp_path: Path) -> None:
    """A script without a main guard, as in the docs, may render with several processes."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom icre_jax.rendering import SyntheticSettings, write_tree\n"
        "print('once')\n"
        f"write_tree('sysu_mm01', Path({str(tmp_path / 'data')!r}), {SETTINGS!r}, num_workers=2)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "once\n"
    assert (tmp_path / "data" / "synthetic.json").is_file()


OTHERS = dataclasses.replace(SETTINGS, num_train_ids=5, num_val_ids=0, num_test_ids=5, num_images_per_camera=2)


@pytest.fixture(scope="module")
def llcm_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("llcm") / "data"
    write_tree("llcm", root, OTHERS, num_workers=2)
    return files_of(root)


def list_of(files: dict[str, bytes], name: str) -> dict[str, int]:
    lines = files[name].decode().splitlines()
    assert len({line.split(" ")[0] for line in lines}) == len(lines)
    return {line.split(" ")[0]: int(line.split(" ")[1]) for line in lines}


def test_layout_is_that_of_llcm(llcm_files: dict[str, bytes]) -> None:
    lists = {
        name: list_of(llcm_files, f"idx/{name}.txt") for name in ("train_vis", "train_nir", "test_vis", "test_nir")
    }
    images = {name for name in llcm_files if name.endswith(".jpg")}
    assert images == set().union(*lists.values())
    assert sum(map(len, lists.values())) == len(images)
    test_ids = {int(word) for word in llcm_files["idx/test_id.txt"].decode().strip().split(",")}
    assert len(test_ids) == 5
    for kind in ("vis", "nir"):
        for path, label in lists[f"train_{kind}"].items():
            folder, pid, name = path.split("/")
            assert folder == kind
            assert int(pid) not in test_ids
            assert 1 <= int(name.split("_c")[1].split("_")[0]) <= 9
            assert label in range(5)
        for path, label in lists[f"test_{kind}"].items():
            folder, camera, pid, _ = path.split("/")
            assert folder == f"test_{kind}"
            assert camera in {f"cam{n}" for n in range(1, 10)}
            assert int(pid) == label
            assert label in test_ids
    # No near-infrared test image is of camera 3, though the same people were seen there by day.
    assert not any("/cam3/" in path for path in lists["test_nir"])
    assert any("/cam3/" in path for path in lists["test_vis"])
    assert {label for name in ("train_vis", "train_nir") for label in lists[name].values()} == set(range(5))


def test_a_camera_of_llcm_never_takes_the_same_moment_twice(llcm_files: dict[str, bytes]) -> None:
    """Equal camera and number would mean equal pose and place in both modalities."""
    names = [name.rsplit("/", 1)[1] for name in llcm_files if name.endswith(".jpg")]
    moments = [name.rsplit("_", 1)[0] for name in names]
    assert len(set(moments)) == len(names)


@pytest.fixture(scope="module")
def regdb_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("regdb") / "data"
    write_tree("regdb", root, OTHERS)
    return root


def test_layout_is_that_of_regdb(regdb_tree: Path) -> None:
    files = files_of(regdb_tree)
    images = {name for name in files if name.endswith(".bmp")}
    assert len(images) == 10 * 2 * 2
    halves = []
    for trial in range(1, 11):
        folders = {}
        for part in ("train", "test"):
            visible, thermal = (list_of(files, f"idx/{part}_{kind}_{trial}.txt") for kind in ("visible", "thermal"))
            assert {path.split("/")[0] for path in visible} == {"Visible"}
            assert {path.split("/")[0] for path in thermal} == {"Thermal"}
            assert {*visible, *thermal} <= images
            # One label, one person, in both kinds of images; counted from 0.
            people = {(path.split("/")[1], label) for path, label in {**visible, **thermal}.items()}
            assert sorted(label for _, label in people) == list(range(5))
            folders[part] = {folder for folder, _ in people}
            assert len(visible) == len(thermal) == 5 * 2
        assert len(folders["train"]) == len(folders["test"]) == 5
        assert not folders["train"] & folders["test"]
        halves.append(frozenset(folders["train"]))
    assert len(set(halves)) > 7, "every trial is a draw of its own"


def test_layout_is_that_of_hitsz_vcm(hitsz_vcm_tree: Path) -> None:
    """Every file is named once, tracks follow each other without a gap, and the infrared test tracks ask."""
    files = files_of(hitsz_vcm_tree)
    for part, num_ids in (("Train", VCM_PEOPLE.num_train_ids), ("Test", VCM_PEOPLE.num_test_ids)):
        names = files[f"info/{part.lower()}_name.txt"].decode().splitlines()
        of_file = {}
        for name in names:
            pid, modality, camera, _, frame = re.fullmatch(r"(\d{4})M([12])D(\d+)T([12])F(\d+)\.jpg", name).groups()
            of_file[f"{part}/{pid}/{'ir' if modality == '1' else 'rgb'}/D{camera}/{frame}.jpg"] = name
        assert {*of_file} == {name for name in files if name.startswith(f"{part}/")}
        assert len(of_file) == len(names)
        end, asking, seen = 0, [], set()
        for number, line in enumerate(files[f"info/track_{part.lower()}_info.txt"].decode().splitlines(), start=1):
            modality, first, last, pid, camera = line.split()
            assert int(first) == end + 1
            end = int(last)
            its = names[int(first) - 1 : end]
            assert len(its) in (12, 1)
            assert all(name.startswith(f"{pid}M{modality}D{camera}T{1 if len(its) == 12 else 2}F") for name in its)
            asking += [number] if modality == "1" else []
            seen.add((pid, int(camera), modality))
        assert end == len(names)
        assert len({pid for pid, _, _ in seen}) == num_ids
        # Each camera sees by light and in the dark.
        assert {(pid, camera) for pid, camera, m in seen if m == "1"} == {(p, c) for p, c, m in seen if m == "2"}
        assert {camera for _, camera, _ in seen} <= set(range(1, 13))
        if part == "Test":
            assert files["info/query_IDX.txt"].decode().split() == [str(number) for number in asking]
    camera = next(c for c in HITSZ_VCM_CAMERAS if c.modality == "infrared")
    assert len({(c.camid, c.modality) for c in HITSZ_VCM_CAMERAS}) == len(HITSZ_VCM_CAMERAS) == 24
    assert (camera.camid, camera.thermal) == (1, False)


def test_bmp_files_are_the_rendered_images(regdb_tree: Path) -> None:
    for camera, folder in zip(REGDB_CAMERAS, ("Visible", "Thermal"), strict=True):
        with Image.open(regdb_tree / folder / "4" / "person_00002_4.bmp") as image:
            assert (image.format, image.mode) == ("BMP", "RGB")
            assert np.array_equal(np.asarray(image), draw(sample_person(7, 4), camera, 2))


def test_validation_identities_are_refused_where_there_is_no_list(tmp_path: Path) -> None:
    for dataset in ("llcm", "regdb", "hitsz_vcm"):
        with pytest.raises(InputError, match=rf"num_val_ids is 2; allowed for {dataset}: 0"):
            write_tree(dataset, tmp_path / "data", SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_one_folder_holds_one_layout(regdb_tree: Path) -> None:
    with pytest.raises(InputError, match=r"layout is 'regdb' there and 'llcm' here"):
        write_tree("llcm", regdb_tree, OTHERS)
