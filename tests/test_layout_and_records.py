"""From a delivered tree to prepared records: what is listed, what is stored, what is refused."""

import dataclasses
import hashlib
import importlib
import io
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import synthetic
from icre_jax.data.images import decode, find_defect
from icre_jax.data.layouts import sysu_mm01
from icre_jax.data.prepared import open_or_prepare
from icre_jax.data.ready import prepare_data
from icre_jax.engine.provenance import dataset_label
from icre_jax.errors import InputError
from icre_jax.settings import parse
from tests.conftest import PEOPLE
from tests.damage import flip


@pytest.fixture
def copy(tree: Path, tmp_path: Path) -> Path:
    # The root's name holds what a careless parser would split on.
    return Path(shutil.copytree(tree, tmp_path / "cam9 ünï" / "tree"))


def ids_in(path: Path) -> list[int]:
    return sorted(int(field) for field in path.read_text().strip().split(","))


def test_scan_lists_exactly_what_the_lists_name(copy):
    splits = sysu_mm01.scan(copy)
    lists = {name: ids_in(copy / "exp" / f"{name}_id.txt") for name in ("train", "val", "test")}
    expected = {name: set() for name in sysu_mm01.SPLITS}
    for file in copy.glob("cam*/*/*.jpg"):
        camera, pid = int(file.parts[-3][3:]), int(file.parts[-2])
        modality = "infrared" if camera in (3, 6) else "visible"
        name = next(name for name, ids in lists.items() if pid in ids)
        split = {"test": "query" if modality == "infrared" else "gallery"}.get(name, name)
        expected[split].add((file.relative_to(copy).as_posix(), pid, camera, modality))
    for name in sysu_mm01.SPLITS:
        assert {(r.path, r.pid, r.camid, r.modality) for r in splits[name]} == expected[name]
        assert len(splits[name]) == len(expected[name])
    assert len({record.pid for record in splits["train"]}) == PEOPLE.num_train_ids


def test_folders_that_no_list_names_are_left_out(copy):
    shutil.copytree(next(copy.glob("cam1/*")), copy / "cam1" / "0999")
    assert all(record.pid != 999 for split in sysu_mm01.scan(copy).values() for record in split)


def test_what_file_managers_leave_is_no_image(copy):
    folder = next(copy.glob("cam1/*"))
    before = sysu_mm01.scan(copy)
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    assert sysu_mm01.scan(copy) == before


def remove_camera(copy: Path) -> str:
    shutil.rmtree(copy / "cam6")
    return "folder cam6 is missing"


def remove_list(copy: Path) -> str:
    (copy / "exp" / "val_id.txt").unlink()
    return "list exp/val_id.txt is missing"


def name_absent_id(copy: Path) -> str:
    path = copy / "exp" / "test_id.txt"
    path.write_text(path.read_text().strip() + ",777\n")
    return "exp/test_id.txt names identity 777, of which no camera has an image"


def leak_an_identity(copy: Path) -> str:
    leaked = ids_in(copy / "exp" / "train_id.txt")[0]
    path = copy / "exp" / "test_id.txt"
    path.write_text(path.read_text().strip() + f",{leaked}\n")
    return rf"identities in both train_id.txt and test_id.txt: \[{leaked}\]"


def write_words_into_a_list(copy: Path) -> str:
    (copy / "exp" / "val_id.txt").write_text("one,two\n")
    return "exp/val_id.txt is not one line of comma-separated integers"


def name_an_identity_twice(copy: Path) -> str:
    path = copy / "exp" / "val_id.txt"
    first = path.read_text().strip().split(",")[0]
    path.write_text(f"{path.read_text().strip()},{first}\n")
    return rf"exp/val_id.txt names identities twice: \[{first}\]"


def add_a_foreign_file(copy: Path) -> str:
    listed = ids_in(copy / "exp" / "train_id.txt")[0]
    folder = next(copy.glob(f"cam*/{listed:04d}"))
    (folder / "notes.txt").write_text("x")
    return rf"{folder.parent.name}/{folder.name}/notes.txt is not a .jpg file"


def empty_a_modality(copy: Path) -> str:
    for camera in ("cam3", "cam6"):
        for pid in ids_in(copy / "exp" / "test_id.txt"):
            shutil.rmtree(copy / camera / f"{pid:04d}", ignore_errors=True)
    return "no image at all for the split 'query'"


DAMAGES = [
    remove_camera,
    remove_list,
    name_absent_id,
    leak_an_identity,
    write_words_into_a_list,
    name_an_identity_twice,
    add_a_foreign_file,
    empty_a_modality,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_tree_is_refused_by_name(copy, damage):
    message = damage(copy)
    with pytest.raises(InputError, match=message):
        sysu_mm01.scan(copy)


def test_a_missing_folder_says_what_belongs_there(tmp_path):
    with pytest.raises(InputError, match=r"(?s)does not exist.*cam1 \.\. cam6.*test_id\.txt"):
        open_or_prepare("sysu_mm01", tmp_path / "absent", tmp_path / "prepared")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="folder cam1 is missing"):
        open_or_prepare("sysu_mm01", tmp_path / "empty", tmp_path / "prepared")


# ml_collections reads a config file that way.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    ("command", "flag", "more"),
    [
        ("prepare", "--config.data.data_dir", ("--config", "configs/sysu_mm01.py")),
        ("verify", "--data_dir", ("--dataset", "sysu_mm01")),
        ("index", "--images", ("--dataset", "sysu_mm01", "--network", "n", "--index", "i", "--modality", "visible")),
        ("calibrate", "--images", ("--dataset", "sysu_mm01", "--network", "n", "--out", "calibration.json")),
    ],
)
def test_a_missing_folder_names_the_flag_of_the_command(command, flag, more, tmp_path):
    arguments = [*more, f"{flag}={tmp_path / 'absent'}"]
    with pytest.raises(InputError, match=r"No SYSU-MM01 at .*absent: the folder does not exist") as caught:
        importlib.import_module(f"icre_jax.{command}").main(arguments)
    assert flag in str(caught.value).splitlines()[0].replace(",", "").rstrip(".").split()


def test_records_hold_the_files_own_bytes_in_the_order_of_the_index(tree, prepared):
    assert list(prepared.index) == list(sysu_mm01.SPLITS)
    for split, index in prepared.index.items():
        source = prepared.source(split)
        assert len(source) == len(index)
        for row in range(0, len(index), 5):
            record = source[row]
            assert record["image"] == (tree / index.path[row]).read_bytes()
            assert record["path"].decode() == index.path[row]
            assert (record["pid"], record["camid"], record["modality"]) == (
                index.pid[row],
                index.camid[row],
                index.modality[row],
            )


def test_records_at_training_size_give_the_same_pixels(tree, prepared, tmp_path):
    size = (48, 20)
    resized = open_or_prepare("sysu_mm01", tree, tmp_path, stored_size=size)
    assert resized.folder == tmp_path / "48x20" / "sysu_mm01" / "1.0.0"
    assert resized.fingerprint == prepared.fingerprint
    for split, index in prepared.index.items():
        theirs, ours = prepared.source(split), resized.source(split)
        assert np.array_equal(resized.index[split].path, index.path)
        assert len(ours) == len(theirs)
        for row in range(len(index)):
            stored = ours[row]["image"]
            with Image.open(io.BytesIO(stored)) as image:
                assert image.size == (20, 48)
            np.testing.assert_array_equal(decode(stored, size), decode(theirs[row]["image"], size))


def test_prepared_once_and_then_opened(tree, prepared, tmp_path):
    calls = []
    again = open_or_prepare(
        "sysu_mm01", tree, prepared.folder.parent.parent, progress=lambda done, total: calls.append(done)
    )
    assert calls == []
    assert again.fingerprint == prepared.fingerprint
    # Records are enough: the tree may be gone.
    gone = open_or_prepare("sysu_mm01", tmp_path / "gone", prepared.folder.parent.parent)
    assert gone.fingerprint == prepared.fingerprint


def test_the_fingerprint_sees_one_changed_pixel(copy, prepared, tmp_path):
    same = open_or_prepare("sysu_mm01", copy, tmp_path / "same")
    assert same.fingerprint == prepared.fingerprint
    file = copy / str(prepared.index["train"].path[0])
    pixels = np.asarray(Image.open(file)).copy()
    pixels[:8] = 255 - pixels[:8]
    Image.fromarray(pixels).save(file, quality=95)
    other = open_or_prepare("sysu_mm01", copy, tmp_path / "other")
    assert other.fingerprint != prepared.fingerprint
    with pytest.raises(InputError, match="made from other files or labels than those in"):
        open_or_prepare("sysu_mm01", copy, tmp_path / "same")


def test_rendered_people_are_never_called_real(copy, prepared, tmp_path):
    assert dataset_label(prepared) == "synthetic people"
    (copy / "synthetic.json").unlink()
    assert dataset_label(open_or_prepare("sysu_mm01", copy, tmp_path / "real")) == "SYSU-MM01"


def test_an_interrupted_preparation_is_done_again(copy, tmp_path):
    prepared = open_or_prepare("sysu_mm01", copy, tmp_path / "prepared")
    (prepared.folder / "SHA256SUMS").unlink()
    next(prepared.folder.glob("*train.array_record*")).write_bytes(b"half")
    again = open_or_prepare("sysu_mm01", copy, tmp_path / "prepared")
    assert again.fingerprint == prepared.fingerprint
    assert len(again.source("train")[0]["image"]) > 100
    # Nothing is deleted where it cannot be made again.
    (prepared.folder / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match=r"records in .* have no SHA256SUMS.* is not there to prepare them anew"):
        open_or_prepare("sysu_mm01", tmp_path / "gone", tmp_path / "prepared")
    assert (prepared.folder / "index.npz").is_file()


def test_damaged_records_are_named(copy, tmp_path):
    prepared = open_or_prepare("sysu_mm01", copy, tmp_path / "prepared")
    (prepared.folder / "index.npz").write_bytes(b"not an archive")
    with pytest.raises(InputError, match=r"are damaged: index.npz has 14 bytes, and .* delete that folder"):
        open_or_prepare("sysu_mm01", copy, tmp_path / "prepared")


def test_what_file_managers_leave_is_no_damage(copy, tmp_path):
    prepared = open_or_prepare("sysu_mm01", copy, tmp_path / "prepared")
    for name in (".DS_Store", ".nfs000000000001"):
        (prepared.folder / name).write_bytes(b"left")
    assert open_or_prepare("sysu_mm01", copy, tmp_path / "prepared").fingerprint == prepared.fingerprint
    (prepared.folder / "more.npz").write_bytes(b"left")
    with pytest.raises(InputError, match=r"more\.npz was not there when it was saved"):
        open_or_prepare("sysu_mm01", copy, tmp_path / "prepared")


def test_it_is_said_when_records_are_read_for_a_tree_that_is_not_there(prepared, tmp_path):
    said: list[str] = []
    listener = types.SimpleNamespace(say=said.append, advance=lambda *_: None)
    places = {"data_dir": str(tmp_path / "gone"), "prepared_dir": str(prepared.folder.parent.parent)}
    data = parse(synthetic.get_config()).data.model_copy(update={**places, "synthetic": None, "store_resized": False})
    assert prepare_data(data, listener).fingerprint == prepared.fingerprint
    assert said[0] == (
        f"{tmp_path / 'gone'} is not there: reading the records that were made from {prepared.made_from}."
    )


def test_a_damaged_image_is_named_when_it_is_read(prepared, tmp_path):
    folder = Path(shutil.copytree(prepared.folder, tmp_path / "sysu_mm01" / "1.0.0"))
    file = next(folder.glob("*train.array_record*"))
    content = file.read_bytes()
    image = content.index(prepared.source("train")[7]["image"][-100:])
    flip(file, image + 50, 3)
    opened = open_or_prepare("sysu_mm01", tmp_path / "gone", tmp_path)
    words = rf"damaged: record 7 of train, {prepared.index['train'].path[7]}, cannot be read: .*delete that folder"
    with pytest.raises(InputError, match=words):
        opened.source("train")[7]
    assert opened.source("train")[6]["image"] == prepared.source("train")[6]["image"]
    # ArrayRecord has sums of its own: where its records are whole, and others.
    others = dataclasses.replace(prepared, sums={**prepared.sums, "train": prepared.sums["train"][::-1]})
    with pytest.raises(InputError, match=r"record 7 of train, .*, is not what was stored"):
        others.source("train")[7]
    short = dataclasses.replace(prepared, sums={**prepared.sums, "train": prepared.sums["train"][:-1]})
    with pytest.raises(InputError, match=r"train has \d+ records, not \d+"):
        short.source("train")


def test_all_broken_images_are_named_at_once(copy, tmp_path):
    files = sorted(copy.glob("cam1/*/*.jpg"))[:3]
    files[0].write_bytes(files[0].read_bytes()[:-200])
    files[1].write_bytes(b"")
    Image.open(files[2]).convert("CMYK").save(files[2])
    with pytest.raises(InputError) as caught:
        open_or_prepare("sysu_mm01", copy, tmp_path / "prepared")
    message = str(caught.value)
    assert "3 of" in message
    for file, defect in zip(files, ("not readable", "empty file", "colour mode CMYK"), strict=True):
        assert f"{file.relative_to(copy).as_posix()}: {defect}" in message
    assert not (tmp_path / "prepared" / "sysu_mm01").exists()


def test_a_rotation_tag_is_a_defect(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 16)).save(tmp_path / "rotated.jpg", exif=exif)
    assert "EXIF rotation" in str(find_defect((tmp_path / "rotated.jpg").read_bytes()))


def test_decode_resizes_and_makes_grey_three_channels(tmp_path):
    Image.fromarray(np.arange(200, dtype=np.uint8).reshape(20, 10)).save(tmp_path / "grey.png")
    image = decode((tmp_path / "grey.png").read_bytes(), (10, 5))
    assert image.shape == (10, 5, 3)
    assert image.dtype == np.uint8
    assert (image[..., 0] == image[..., 2]).all()


def test_the_fingerprint_is_what_its_docstring_says(tree, prepared):
    digest = hashlib.sha256()
    for split, index in prepared.index.items():
        for row in range(len(index)):
            modality = ("visible", "infrared")[index.modality[row]]
            digest.update(f"{split}|{index.path[row]}|{index.pid[row]}|{index.camid[row]}|{modality}|".encode())
            digest.update(hashlib.sha256((tree / index.path[row]).read_bytes()).digest())
    assert digest.hexdigest() == prepared.fingerprint
