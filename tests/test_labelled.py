"""Which images a gallery has, and who is on them, by folders, lists and data sets."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from icre_jax.data.collection import collect
from icre_jax.data.folders import write_manifest
from icre_jax.data.labelled import DATASETS, Labelled, Source, list_labelled, read_rendered_seed
from icre_jax.data.walking import walk_files
from icre_jax.datasets import CARDS, MANIFEST
from icre_jax.errors import InputError
from tests.conftest import OTHER_PEOPLE, PEOPLE, VCM_PEOPLE


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_persons_and_cameras_of_folders(tmp_path):
    touch(tmp_path, "bo/2.jpg", "anna/cam12/x/1.png", "anna/other/1.BMP", "loose.jpeg", ".hidden/1.jpg", "bo/Thumbs.db")
    root, images = list_labelled(Source(tmp_path), "visible")
    assert root == tmp_path
    assert images == [
        Labelled("anna/cam12/x/1.png", "anna", 12),
        Labelled("anna/other/1.BMP", "anna", None),
        Labelled("bo/2.jpg", "bo", None),
        Labelled("loose.jpeg", "", None),
    ]


def test_files_of_a_folder_have_the_order_of_their_paths(tmp_path):
    names = ("b/1", "b.c/1", "b-/1", "B/z/y", "a", "b/.x/1", ".y/1", ".z", "é/1", "Thumbs.db", "c/Thumbs.db", "b/1.d/2")
    touch(tmp_path, *names, "Thumbs.db.x/1")
    findings: list[str] = []
    found = [file.relative_to(tmp_path) for file in walk_files(tmp_path, tmp_path, findings)]
    shown = (file.relative_to(tmp_path) for file in sorted(tmp_path.rglob("*")) if not file.is_dir())
    kept = [path for path in shown if path.name != "Thumbs.db" and not any(part[0] == "." for part in path.parts)]
    assert (found, findings, len(found)) == (kept, [], 8)


@pytest.fixture
def locked(monkeypatch):
    """Folders of this name cannot be read. Modes would not do: tests may run as root."""
    scandir = os.scandir

    def refuse(path="."):
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.parametrize("name", ["anna/locked/cam1/1.jpg", "anna/locked/.hidden", "locked/1.jpg"])
def test_a_folder_that_cannot_be_read_is_named(name, locked, tmp_path):
    touch(tmp_path, "train/visible/bo/1.jpg", f"train/visible/{name}")
    place = f"{name[: name.index('locked')]}locked/ cannot be read (Permission denied); it must be a folder that you"
    for attempt, above in (
        (lambda: collect(tmp_path / "train", "visible"), ""),
        (lambda: list_labelled(Source(tmp_path / "train" / "visible"), "visible"), ""),
        (lambda: write_manifest(tmp_path), "train/visible/"),
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        assert f"  - {above}{place}" in str(caught.value)
        assert "holds no image" not in str(caught.value)
    assert not (tmp_path / "manifest.csv").exists()


def test_a_folder_that_cannot_be_read_itself_is_named(locked, tmp_path):
    touch(tmp_path, "locked/1.jpg")
    with pytest.raises(InputError, match=r"- the folder itself cannot be read \(Permission denied\)"):
        collect(tmp_path / "locked", "visible")


def test_what_should_be_a_folder_of_a_split_and_is_none_is_named(tmp_path):
    touch(tmp_path, "train", "query/visible", "gallery/visible/anna/1.jpg", "gallery/visible/.locked/1")
    (tmp_path / "gallery" / "infrared").symlink_to("gone")
    with pytest.raises(InputError) as caught:
        write_manifest(tmp_path)
    for words in (
        "train/ cannot be read (Not a directory)",
        "query/visible/ cannot be read (Not a directory)",
        "gallery/infrared/ cannot be read (No such file or directory)",
    ):
        assert f"  - {words}; it must be a folder" in str(caught.value)


def test_a_folder_for_each_modality(tmp_path):
    touch(tmp_path, "visible/anna/1.jpg", "infrared/anna/2.jpg")
    for modality, name in (("visible", "1.jpg"), ("infrared", "2.jpg")):
        root, images = list_labelled(Source(tmp_path), modality)
        assert (root, images) == (tmp_path / modality, [Labelled(f"anna/{name}", "anna", None)])
    shutil.rmtree(tmp_path / "infrared")
    with pytest.raises(InputError, match="no folder 'infrared'"):
        list_labelled(Source(tmp_path), "infrared")
    touch(tmp_path, "more/1.jpg")
    with pytest.raises(InputError, match="holds more beside visible and infrared"):
        list_labelled(Source(tmp_path), "visible")


def test_one_image_and_a_list_say_nobody(tmp_path):
    touch(tmp_path, "anna/1.jpg")
    assert list_labelled(Source(tmp_path / "anna" / "1.jpg"), "visible") == (
        tmp_path / "anna",
        [Labelled("1.jpg", "", None)],
    )
    (tmp_path / "list.txt").write_text("anna/1.jpg\n")
    assert list_labelled(Source(tmp_path / "list.txt"), "visible") == (tmp_path, [Labelled("anna/1.jpg", "", None)])


def test_a_manifest_without_its_training_images(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    (tmp_path / "manifest.csv").write_text(
        "path,pid,camid,modality,split\n1.jpg,1,1,visible,train\n2.jpg,2,1,visible,gallery\n"
        "3.jpg,2,2,infrared,query\n4.jpg,3,4,visible,query\n"
    )
    _, images = list_labelled(Source(tmp_path), "visible")
    assert images == [Labelled("4.jpg", "3", 4), Labelled("2.jpg", "2", 1)]
    assert list_labelled(Source(tmp_path / "manifest.csv", split="gallery"), "visible")[1] == images[1:]
    with pytest.raises(InputError, match=r"no visible image in the split val. Splits: test, query, gallery"):
        list_labelled(Source(tmp_path, split="val"), "visible")
    (tmp_path / "manifest.csv").write_text("path,pid\n")
    with pytest.raises(InputError, match="cannot be used"):
        list_labelled(Source(tmp_path), "visible")


@pytest.mark.parametrize("name", ["cam3/1.jpg", "cam3/0001/1.jpg", "gallery/anna/1.jpg"])
def test_a_folder_that_is_no_person_is_refused(name, tmp_path):
    touch(tmp_path, name)
    with pytest.raises(
        InputError, match=rf"{name.split('/')[0]}/ stands where a person's folder should be(.|\n)*--data"
    ):
        list_labelled(Source(tmp_path), "visible")


def test_what_is_refused(tmp_path):
    touch(tmp_path, "anna/cam1/cam2/1.jpg")
    with pytest.raises(InputError, match="several camN folders"):
        list_labelled(Source(tmp_path), "visible")
    with pytest.raises(InputError, match="--split query needs a manifest or --dataset"):
        list_labelled(Source(tmp_path, split="query"), "visible")
    with pytest.raises(InputError, match="There is no"):
        list_labelled(Source(tmp_path / "nowhere"), "visible")


def test_rendered_trees_of_data_sets(tree, llcm_tree, regdb_tree, hitsz_vcm_tree, tmp_path):
    """Nobody of the training is in them, and everybody of the test is."""
    sizes = {"sysu_mm01": PEOPLE.num_test_ids, "llcm": OTHER_PEOPLE.num_test_ids, "regdb": OTHER_PEOPLE.num_test_ids}
    sizes["hitsz_vcm"] = VCM_PEOPLE.num_test_ids
    trees = (("sysu_mm01", tree), ("llcm", llcm_tree), ("regdb", regdb_tree), ("hitsz_vcm", hitsz_vcm_tree))
    for dataset, folder in trees:
        trial = 1 if CARDS[dataset].trials else None
        persons = []
        for modality in ("visible", "infrared"):
            root, images = list_labelled(Source(folder, dataset, trial), modality)
            assert all((root / image.path).is_file() for image in images)
            persons.append({image.person for image in images})
        assert len(persons[0] | persons[1]) == sizes[dataset]
        assert read_rendered_seed(folder) == PEOPLE.seed
    _, val = list_labelled(Source(tree, "sysu_mm01", split="val"), "visible")
    assert len({image.person for image in val}) == PEOPLE.num_val_ids
    with pytest.raises(InputError, match="RegDB: 1 to 10"):
        list_labelled(Source(regdb_tree, "regdb"), "visible")
    with pytest.raises(InputError, match=r"\(LLCM\) has no visible image in the split val"):
        list_labelled(Source(llcm_tree, "llcm", split="val"), "visible")
    assert read_rendered_seed(tmp_path) is None
    (tmp_path / "synthetic.json").write_text("[]")
    with pytest.raises(InputError, match="is damaged"):
        read_rendered_seed(tmp_path)


def test_every_data_set_has_a_layout_here():
    assert {*DATASETS, MANIFEST.name} == {*CARDS}
