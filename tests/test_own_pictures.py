"""A user's own images: from folders to a list, from the list to records, and to a trained network with a score."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icre_jax.data.folders import name_of, write_manifest
from icre_jax.data.layouts import manifest
from icre_jax.data.prepared import open_or_prepare
from icre_jax.datasets import RENDERED_MARK
from icre_jax.errors import InputError
from icre_jax.evals.manifest import PROTOCOL, make_protocol
from icre_jax.evals.protocol import evaluate, rank_lists
from icre_jax.evals.ranking import Embedded


def draw(path: Path, seed: int) -> None:
    """A small image of its own; infrared ones grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels if "visible" in path.parts else pixels[..., 0]).save(path)


def make_folders(root: Path, *, two_ways: bool = False) -> Path:
    """Five people to train on and three to test, two images of each in each modality, of three formats."""
    seed = 0
    for split, people, modalities in (
        ("train", range(1, 6), ("visible", "infrared")),
        ("query", range(11, 14), ("visible", "infrared") if two_ways else ("infrared",)),
        ("gallery", range(11, 14), ("visible", "infrared") if two_ways else ("visible",)),
    ):
        for modality in modalities:
            for person in people:
                for nth, suffix in enumerate((".jpg", ".PNG" if person % 2 else ".bmp")):
                    seed += 1
                    draw(root / split / modality / f"{person:03d}" / f"größe {nth}{suffix}", seed)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folders(tmp_path / "my_cam3_data")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_folders_become_a_list(folder):
    counts = write_manifest(folder)
    assert counts == {
        ("train", "visible"): (5, 10),
        ("train", "infrared"): (5, 10),
        ("query", "infrared"): (3, 6),
        ("gallery", "visible"): (3, 6),
    }
    rows = rows_of(folder)
    assert len(rows) == 32
    for row in rows:
        split, modality, person, _ = row["path"].split("/")
        assert (row["split"], row["modality"], int(row["pid"])) == (split, modality, int(person))
        assert row["camid"] == {"visible": "1", "infrared": "2"}[modality]
    splits = manifest.scan(folder)
    assert [record.path for split in splits.values() for record in split] == [row["path"] for row in rows]


def test_a_list_is_not_written_over(folder):
    (folder / "manifest.csv").write_text("mine\n")
    with pytest.raises(InputError, match="is there already"):
        write_manifest(folder)
    assert (folder / "manifest.csv").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("path", "pid", "name"),
    [
        ("query/infrared/anna/a.png", 1, "anna"),
        ("gallery/visible/anna/cam2/a.png", 1, "anna"),
        ("query/infrared/0007/a.png", 7, ""),
        ("query/infrared/7/a.png", 2, "7"),  # a folder beside others with names
        ("photos/anna/a.png", 1, ""),
        ("query/thermal/anna/a.png", 1, ""),
        ("query/infrared/a.png", 1, ""),
    ],
)
def test_a_person_has_the_name_of_their_folder(path, pid, name):
    assert name_of(path, pid) == name


def test_names_are_numbered_and_cameras_read_from_their_folders(tmp_path):
    for split, names in (("train", ("zoë", "10")), ("query", ("bob",)), ("gallery", ("bob",))):
        for name in names:
            for modality in ("visible", "infrared"):
                draw(tmp_path / split / modality / name / "cam7" / "a.png", 1)
    write_manifest(tmp_path)
    rows = rows_of(tmp_path)
    assert {row["path"].split("/")[2]: row["pid"] for row in rows} == {"10": "1", "bob": "2", "zoë": "3"}
    assert {row["camid"] for row in rows} == {"7"}


@pytest.mark.parametrize("name", [str(2**31), "9" * 200, "\u0663"])
def test_a_number_that_no_list_may_hold_is_a_name(folder, name):
    """Too large, or in digits that a list is not read in."""
    for modality in ("visible", "infrared"):
        (folder / "train" / modality / "005").rename(folder / "train" / modality / name)
    write_manifest(folder)
    persons = sorted({row["path"].split("/")[2] for row in rows_of(folder)})
    assert {row["path"].split("/")[2]: int(row["pid"]) for row in rows_of(folder)} == {
        person: pid for pid, person in enumerate(persons, start=1)
    }
    assert len(manifest.scan(folder)["train"]) == 20
    assert name_of(f"train/visible/{name}/a.png", 5) == name


def test_the_largest_number_is_kept(folder):
    for modality in ("visible", "infrared"):
        (folder / "train" / modality / "005").rename(folder / "train" / modality / f"000{2**31 - 1}")
    write_manifest(folder)
    assert {record.pid for record in manifest.scan(folder)["train"]} == {1, 2, 3, 4, 2**31 - 1}


def no_person(root: Path) -> str:
    draw(root / "train" / "visible" / "a.png", 1)
    return "train/visible/a.png lies in no person's folder"


def no_image(root: Path) -> str:
    (root / "query" / "infrared" / "011" / "notes.txt").write_text("x")
    return "query/infrared/011/notes.txt is none of .jpg"


def no_modality(root: Path) -> str:
    draw(root / "gallery" / "thermal" / "1" / "a.png", 1)
    return "gallery/thermal is neither visible nor infrared"


def other_split(root: Path) -> str:
    draw(root / "val" / "visible" / "1" / "a.png", 1)
    return "val/ is none of the folders train, query, gallery"


def other_case(root: Path) -> str:
    draw(root / "Train2" / "infrared" / "1" / "a.png", 1)
    return "Train2/ is none of the folders train, query, gallery"


def linked_split(root: Path) -> str:
    (root / "test").symlink_to(root / "gallery")
    return "test/ is none of the folders train, query, gallery"


def loose_image(root: Path) -> str:
    draw(root / "a.JPG", 1)
    return "a.JPG lies in none of the folders train, query, gallery"


def loose_archive(root: Path) -> str:
    (root / "more.zip").write_bytes(b"PK")
    return "more.zip lies in none of the folders train, query, gallery"


def folder_like_a_text(root: Path) -> str:
    draw(root / "gallery.txt" / "a.png", 1)
    return "gallery.txt/ is none of the folders train, query, gallery"


def one_camera(root: Path) -> str:
    draw(root / "train" / "visible" / "001" / "cam2" / "a.png", 1)
    return "some images lie in camN folders and some do not"


def large_camera(root: Path) -> str:
    draw(root / "train" / "visible" / "001" / f"cam{2**31}" / "a.png", 1)
    return f"train/visible/001/cam{2**31}/a.png lies in a folder of a camera above {2**31 - 1}"


def long_camera(root: Path) -> str:
    draw(root / "train" / "visible" / "001" / f"cam{'9' * 200}" / "a.png", 1)
    return f"{'9' * 200}/a.png lies in a folder of a camera above {2**31 - 1}"


def two_names(root: Path) -> str:
    draw(root / "train" / "visible" / "1" / "a.png", 1)
    return "person 1 has several folder names: 001, 1"


def broken_link(root: Path) -> str:
    (root / "train" / "visible" / "001" / "b.png").symlink_to(root / "gone.png")
    return "train/visible/001/b.png is a link to a file that is not there"


def linked_person(root: Path) -> str:
    (root / "train" / "visible" / "006").symlink_to(root / "train" / "visible" / "001")
    return "train/visible/006 is a link to a folder"


BESIDE = (other_split, other_case, linked_split, loose_image, loose_archive, folder_like_a_text)
FORMS = (
    *BESIDE,
    no_person,
    no_image,
    no_modality,
    one_camera,
    large_camera,
    long_camera,
    two_names,
    broken_link,
    linked_person,
)


def test_texts_and_what_file_managers_leave_may_lie_beside_the_folders(folder):
    for name in ("README.txt", "notes.MD", "older.csv", RENDERED_MARK, ".DS_Store", "Thumbs.db", ".git/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    assert sum(images for _, images in write_manifest(folder).values()) == 32


@pytest.mark.parametrize("damage", FORMS)
def test_folders_of_another_form_are_named(folder, damage):
    words = damage(folder)
    with pytest.raises(InputError) as caught:
        write_manifest(folder)
    assert words in str(caught.value)
    assert not (folder / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("path,pid", "file,pid", "line 1 is 'file,pid,camid,modality,split'"),
        (",1,1,visible,train", ",bob,1,visible,train", "line 2: pid is 'bob'; it must be a whole number from 0"),
        (",1,1,visible,train", ",1,-1,visible,train", "line 2: camid is '-1'"),
        (",1,1,visible,train", ",1,1,rgb,train", "line 2: modality is 'rgb'; allowed are visible, infrared"),
        (",1,1,visible,train", ",1,1,visible,val", "line 2: split is 'val'; allowed are train, query, gallery"),
        (",1,1,visible,train", ",1,1,visible,train,7", "line 2 has 6 fields, not 5"),
        ("train/visible/001", "train/visible/009", "line 2: train/visible/009/größe 0.jpg is missing"),
        ("train/visible/001", "../elsewhere", "line 2: path is '../elsewhere/größe 0.jpg'; it must be relative"),
        (",11,2,infrared,query", ",5,2,infrared,query", "identities in both train and query: [5]"),
        (",1,2,infrared,train", ",2,2,infrared,train", "training identities without infrared images: [1]"),
        ("infrared,query", "visible,query", "query and gallery hold one modality only"),
        ("infrared,query", "infrared,train", "no image at all for the split 'query'"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(folder, old, new, words):
    write_manifest(folder)
    path = folder / "manifest.csv"
    everywhere = old in (",1,2,infrared,train", "infrared,query")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new, -1 if everywhere else 1), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        manifest.scan(folder)
    assert words in str(caught.value)


def test_an_image_named_twice(folder):
    write_manifest(folder)
    path = folder / "manifest.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1]]), encoding="utf-8-sig")
    with pytest.raises(InputError, match=r"line 34: train/visible/001/größe 0\.jpg is named in line 2 already"):
        manifest.scan(folder)


def test_an_image_has_one_path_however_a_list_writes_it(folder, tmp_path):
    write_manifest(folder)
    path = folder / "manifest.csv"
    text = path.read_text(encoding="utf-8")
    plain = manifest.scan(folder)
    fingerprint = open_or_prepare("manifest", folder, tmp_path / "prepared").fingerprint
    path.write_text(text.replace("\ntrain/visible/", "\n./train//visible/./"), encoding="utf-8")
    assert manifest.scan(folder) == plain
    assert open_or_prepare("manifest", folder, tmp_path / "prepared").fingerprint == fingerprint
    # The image of line 2 again, to be tested on.
    again = text.splitlines()[1].replace("train/visible/001/", "./train/visible//001/./").replace(",1,1,", ",11,1,")
    path.write_text(f"{text}{again.replace(',train', ',gallery')}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 34: train/visible/001/größe 0\.jpg is named in line 2 already"):
        manifest.scan(folder)


def test_a_changed_label_is_not_overlooked(folder, tmp_path):
    write_manifest(folder)
    prepared = open_or_prepare("manifest", folder, tmp_path / "prepared")
    assert {name: len(index) for name, index in prepared.index.items()} == {"train": 20, "query": 6, "gallery": 6}
    path = folder / "manifest.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",1,2,infrared,train", ",1,9,infrared,train"))
    with pytest.raises(InputError, match="made from other files or labels"):
        open_or_prepare("manifest", folder, tmp_path / "prepared")


def test_records_of_other_images_are_not_taken_for_a_folder_that_is_not_there(folder, tmp_path):
    """A typing error in data_dir is no reason to train on whatever was prepared before."""
    write_manifest(folder)
    prepared = open_or_prepare("manifest", folder, tmp_path / "prepared")
    absent = tmp_path / "my_cam3_dta"
    with pytest.raises(InputError, match=r"no folder .*my_cam3_dta, and the records in .* made from .*my_cam3_data\. "):
        open_or_prepare("manifest", absent, tmp_path / "prepared")
    folder.rename(tmp_path / "elsewhere")  # under the name of the folder they were made from they are enough
    again = open_or_prepare("manifest", folder, tmp_path / "prepared")
    assert again.fingerprint == prepared.fingerprint


def side(features: list[list[float]], pid: list[int], camid: list[int], split: list[str]) -> Embedded:
    return Embedded(
        np.array(features, np.float32),
        np.array(pid),
        np.array(camid),
        np.array([str(i) for i in range(len(pid))]),
        np.array(split),
    )


def test_only_queries_ask_and_only_the_gallery_is_searched():
    # Worked by hand. The query (1, 0) of person 1: the visible query image of person 2 is nearest but not searched,
    # then come (0.9, 0.1) of person 1 in its own camera, (0.8, 0.6) of person 2, (0, 1) of person 1.
    infrared = side([[1, 0], [0, 1]], [1, 2], [3, 3], ["query", "gallery"])
    visible = side([[1, 0], [0.9, 0.1], [0.8, 0.6], [0, 1]], [2, 1, 2, 1], [1, 3, 1, 1], ["query"] + ["gallery"] * 3)
    sides = {"infrared": infrared, "visible": visible}
    # (k / rank_k): matches at ranks 1 and 3; with the query's camera left out, at rank 2 of 2.
    for exclude, expected in ((False, ((1 + 2 / 3) / 2, 2 / 3)), (True, (1 / 2, 1 / 2))):
        first, second = evaluate(make_protocol(exclude_same_camera=exclude), sides, dataset="own images", num_trials=3)
        assert (first.setting, first.num_queries, first.num_trials) == ("infrared_to_visible", 1, 1)
        np.testing.assert_allclose((first.mean["mAP"], first.mean["mINP"]), expected)
        assert (second.setting, second.mean["rank1"], second.num_queries) == ("visible_to_infrared", 1, 1)
    (ranked,) = rank_lists(PROTOCOL.settings[0], sides, [0], top=5)
    assert ranked.gallery_index.tolist() == [2, 3]


def test_a_direction_without_images_is_left_out():
    present = {("query", "infrared"), ("gallery", "visible"), ("gallery", "infrared")}
    assert [setting.name for setting in PROTOCOL.restrict(present).settings] == ["infrared_to_visible"]
